// Renders templates with Go's own text/template: JSON in, JSON out.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type message struct{ Role, Content string }

func main() {
	var asked []struct {
		Template string
		Messages []message
	}
	check(json.NewDecoder(os.Stdin).Decode(&asked))
	var written []string
	for _, one := range asked {
		var systems []string
		for _, said := range one.Messages {
			if said.Role == "system" {
				systems = append(systems, said.Content)
			}
		}
		parsed, err := template.New("").Parse(one.Template)
		check(err)
		var text strings.Builder
		check(parsed.Execute(&text, map[string]any{"System": strings.Join(systems, "\n\n"), "Messages": one.Messages}))
		written = append(written, text.String())
	}
	check(json.NewEncoder(os.Stdout).Encode(written))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
