"""Write docs/cli.md: every command and option, in the words of `--help`.

    python -m scripts.cli_reference > docs/cli.md

Tables instead of the drawn boxes of `--help`, so that the page reads well anywhere and does not depend on the version
of the library that draws them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from lorakit.cli.main import app

HEADING = """\
# Commands

Written by `python -m scripts.cli_reference` from the text of `--help`; `lorakit COMMAND --help` shows the same.
Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 something you can put right, 2 a command line
that cannot be read, 130, 143 and 129 stopped by a signal (what was trained so far is saved).
"""


def page() -> str:
    """Return the whole page in Markdown."""
    return "\n".join([HEADING, *(section(path, command) for path, command in leaves(get_command(app), "lorakit"))])


def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the commands that do something, with how they are called."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, child in below.items():
        yield from leaves(child, f"{path} {name}")


def section(path: str, command: Any) -> str:
    """Return what the page says of one command."""
    words, _, example = inspect.cleandoc(command.help).partition("Example: ")
    rows = [f"| {names(one)} | {meaning(one)} |" for one in command.params if one.name != "help"]
    table = ["| | |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join([f"## {path}\n", words.strip() + "\n", f"```sh\n{example}\n```\n", *table])


def names(parameter: Any) -> str:
    """Return ``` `-o`, `--output FOLDER` ```, or the name of an argument."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    value = "" if parameter.is_flag else f" {parameter.metavar}"
    short_first = sorted(parameter.opts, key=len)
    return ", ".join(f"`{name}{value if name == short_first[-1] else ''}`" for name in short_first)


def meaning(parameter: Any) -> str:
    """Return the help text, whether the value must be given, and what it is when it is not."""
    shows = parameter.default is not None and not getattr(parameter, "is_flag", False)
    default = getattr(parameter.default, "value", parameter.default)
    return parameter.help + (" Required." if parameter.required else f" Default: {default}." if shows else "")


if __name__ == "__main__":
    print(page(), end="")
