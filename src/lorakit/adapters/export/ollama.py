"""The framing of a run as Ollama writes it: a template in Go's text/template, in a Modelfile.

Formats: https://docs.ollama.com/modelfile, https://docs.ollama.com/template, https://pkg.go.dev/text/template.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorakit.data.encoding import TextEncoder
from lorakit.errors import DataError, LorakitError

Messages = Sequence[Mapping[str, str]]

_EACH, _END = "{{ range $i, $_ := .Messages }}", "{{ end }}"
_SYSTEM, _CONTENT = "{{ .System }}", "{{ .Content }}"
_IS_LAST = "{{ if eq (len (slice $.Messages $i)) 1 }}"
_IS_FOLLOWED = "{{ if gt (len (slice $.Messages $i)) 1 }}"
_IS_USER, _IS_ASSISTANT = '{{ if eq .Role "user" }}', '{{ else if eq .Role "assistant" }}'
_CURE = "Ollama's templates cannot say this. Use --to gguf: the file holds the chat template itself."

_KEPT_SPACES = "\n\t\r"
"""Of all that Unicode does not print, what a Modelfile keeps."""


@dataclass(frozen=True, slots=True)
class Framing:
    """What is written around the messages of a conversation, which an answer is to follow."""

    start: str = ""
    """Before the first message of the user, where there is no system text."""
    system: tuple[str, str] | None = None
    """Before a system text, and behind it up to the user's message; None: it is not read."""
    answer: str = ""
    """Behind a message of the user, up to where the model goes on."""
    gap: str = ""
    """What the model begins an answer with, and whoever keeps the answer may have cut off: a space."""
    turn: str | None = None
    """Behind an answer, up to the user's next message; None: the last message is read alone."""

    def text(self, messages: Messages) -> str:
        """Return what `template` writes for messages, a system text first or nowhere."""
        if self.turn is None:
            return messages[-1]["content"] + self.answer
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        written = self.system[0] + system + self.system[1] if self.system and system else self.start
        for number, message in enumerate(messages, start=1):
            if message["role"] == "user":
                written += message["content"] + self.answer
            elif message["role"] == "assistant":
                gap = "" if message["content"].startswith(self.gap) else self.gap
                written += gap + message["content"] + (self.turn if number < len(messages) else "")
        return written

    def template(self) -> str:
        """Return the template in Go's language, for the messages that Ollama passes to it.

        An answer that is the last message is left open: the model goes on with it.
        """
        if self.turn is None:
            return "".join([_EACH, _IS_LAST, _CONTENT, _literal(self.answer), _END, _END])
        start, gap = _literal(self.start), ""
        if self.system is not None:
            before, behind = map(_literal, self.system)
            start = "".join(["{{ if .System }}", before, _SYSTEM, behind, "{{ else }}", start, _END])
        if self.gap:
            lacks = f'{{{{ if ne (printf "%.{len(self.gap)}s" .Content) {_spelled(self.gap)} }}}}'
            gap = "".join([lacks, _literal(self.gap), _END])
        user = [_IS_USER, _CONTENT, _literal(self.answer)]
        assistant = [_IS_ASSISTANT, gap, _CONTENT, _IS_FOLLOWED, _literal(self.turn), _END]
        return "".join([start, _EACH, *user, *assistant, _END, _END])


def framing_of(encoder: TextEncoder) -> Framing:
    """Find a framing by what the run's own one writes around marks.

    Args:
        encoder: Made for the run's style. One without conversations reads each prompt alone.

    Raises:
        LorakitError: A message is written twice or not at all, or changes what stands before it.
    """
    if encoder.style.chat_template is None:
        return Framing(answer=encoder.style.separator)
    try:
        start, answer = _around(encoder, ("user",))
        _, begun, turn, _ = _around(encoder, ("user", "assistant", "user"))
    except DataError as problem:
        raise LorakitError(f"{problem} {_CURE}") from problem
    return Framing(start, _system(encoder), answer, begun.removeprefix(answer), turn)


def _system(encoder: TextEncoder) -> tuple[str, str] | None:
    """Return what stands before and behind a system text; None where there is no such place, or it moves."""
    try:
        before, behind, *_ = _around(encoder, ("system", "user", "assistant", "user"))
    except LorakitError:
        return None
    return before, behind


def _marked(roles: Iterable[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": f"qzj{number}{role}jzq"} for number, role in enumerate(roles)]


def _around(encoder: TextEncoder, roles: Sequence[str]) -> list[str]:
    """Return what a run writes before, between and behind messages of these roles."""
    messages = _marked(roles)
    rest, found = encoder.chat_text(messages), []
    for message in messages:
        before, mark, rest = rest.partition(message["content"])
        if not mark or message["content"] in rest:
            raise LorakitError(f"the chat template does not write each message once, in order. {_CURE}")
        found.append(before)
    return [*found, rest]


def check_framing(framing: Framing, encoder: TextEncoder, texts: Sequence[str]) -> list[str]:
    """Compare a framing with the run's own on conversations, with and without a system text, of up to three turns.

    Args:
        framing: Of `encoder`.
        encoder: Made for the run's style.
        texts: What the messages say; at least one.

    Returns:
        What Ollama does otherwise, where texts are not plain.

    Raises:
        LorakitError: They write different texts.
    """
    if framing.turn is None:
        return []
    notes = []
    for messages in conversations(framing, texts):
        if framing.text(messages) != encoder.chat_text(messages):
            raise LorakitError(f"the chat template looks at more than whose message it is. {_CURE}")
    if framing.system is None:
        notes.append("the chat template has no place for a system text that stays where it is: Ollama reads none.")
    padded = [{"role": "user", "content": f" {texts[0]}\n"}]
    if framing.text(padded) != encoder.chat_text(padded):
        notes.append("training cut white space around messages, and Ollama does not: give them without.")
    if "strftime_now" in (encoder.style.chat_template or ""):
        notes.append("the chat template writes the current date, and the Modelfile that of today.")
    return notes


def conversations(framing: Framing, texts: Sequence[str]) -> list[list[dict[str, str]]]:
    """Return conversations of the shapes that a framing reads, each of which ends with the user."""
    turns = (1, 2, 3) if framing.turn is not None else (1,)
    found = []
    for shape in (roles for count in turns for roles in _shapes(count, framing.system is not None)):
        for first in range(len(texts)):
            said = [texts[(first + number) % len(texts)] for number in range(len(shape))]
            found.append([{"role": role, "content": text} for role, text in zip(shape, said, strict=True)])
    return found


def _shapes(turns: int, with_system: bool) -> list[list[str]]:
    plain = ["user", *["assistant", "user"] * (turns - 1)]
    return [plain, ["system", *plain]] if with_system else [plain]


def modelfile(
    framing: Framing, stops: Iterable[str], positions: int, settings: Mapping[str, float], licence: str | None
) -> str:
    """Return a Modelfile of ``model.gguf`` beside it.

    Args:
        framing: Written as the template.
        stops: Texts that end an answer, each of which `holds`.
        positions: Tokens of the prompt and its answer.
        settings: Of the sampler, by Ollama's names.
        licence: Name of it, where known; left out unless a Modelfile `holds` it.
    """
    lines = [
        "FROM ./model.gguf",
        f'TEMPLATE """{framing.template()}"""',
        *(f"PARAMETER stop {_quoted(stop)}" for stop in stops),
        f"PARAMETER num_ctx {positions}",
        *(f"PARAMETER {name} {value:g}" for name, value in settings.items()),
        *([f"LICENSE {_quoted(licence)}"] if licence is not None and holds(licence) else []),
    ]
    return "\n".join(lines) + "\n"


def holds(text: str) -> bool:
    """Whether a Modelfile, which leaves out what Unicode does not print, can hold a text as it is."""
    return '"""' not in text and all(letter.isprintable() or letter in _KEPT_SPACES for letter in text)


def _quoted(text: str) -> str:
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'


def _literal(text: str) -> str:
    """Return a text as a template holds it: as it is, or as a string of Go where it would mean something else."""
    plain = holds(text) and "{{" not in text and not text.endswith("{")
    return text if plain else f"{{{{ {_spelled(text)} }}}}"


def _spelled(text: str) -> str:
    """Return a text as a string of Go."""
    escapes = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\t": r"\t", "\r": r"\r"}
    letters = (escapes.get(letter, letter if letter.isprintable() else f"\\U{ord(letter):08x}") for letter in text)
    return f'"{"".join(letters)}"'
