"""The one place where text becomes token ids, for training, evaluation and generation alike.

A prompt and its answer are encoded apart and joined as ids, because tokens merge differently across a border that is
not there at generation. Text typed by people never becomes a control token: ``</s>`` inside a row is four characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lorakit.errors import DataError
from lorakit.types import PromptStyle

if TYPE_CHECKING:
    from tokenizers import Encoding

PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}Assistant:\n{{ message['content'] }}{{ eos_token }}\n"
    "{% else %}{{ message['role'] | capitalize }}: {{ message['content'] }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""Used, and saved with the adapter, where the checkpoint brings no chat template of its own.

``User: …``, ``Assistant:`` on a line of its own, the answer and the end-of-sequence token, turn by turn.
"""

_MARK = ("\ufdd0", "\ufdd1")
"""Noncharacters of Unicode that enclose the number of a control token typed by people, while a template is at work."""


def encodings(
    tokenizer: Any, texts: Sequence[str | tuple[str, ...]], *, framed: bool = True, split: bool = True
) -> list[Encoding]:
    """Encode texts, or pairs of texts, without places: what `tokenizer(texts).encodings` holds but for offsets.

    The backend is called as `transformers` calls it; offsets, and lists of what nobody reads, take half of the time.

    Args:
        tokenizer: A fast transformers tokenizer.
        texts: As people typed them.
        framed: Whether the tokenizer's own start and end tokens are put around them.
        split: Whether spelled-out control tokens stay ordinary characters.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = split
    found: list[Encoding] = backend.encode_batch_fast(texts, add_special_tokens=framed)
    return found


class _Rewritten(DataError):
    """A later turn changed what the template writes of the earlier ones."""

    def __init__(self) -> None:
        super().__init__(
            "the chat template writes earlier turns differently when a later one is added, so it cannot be told which "
            "tokens are the assistant's. Use a template that only appends."
        )


class TextEncoder:
    """Turns text into token ids in the way one `PromptStyle` asks for.

    Args:
        tokenizer: A fast transformers tokenizer with an end-of-sequence token.
        style: How prompts are framed; comes from the rows in training, from the manifest afterwards.

    Raises:
        DataError: The tokenizer has no end-of-sequence token, so that nothing could be taught to stop.
    """

    def __init__(self, tokenizer: Any, style: PromptStyle) -> None:
        if tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end-of-sequence token, so the model could never learn to stop. "
                "Set eos_token in the checkpoint's tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.style = style
        self.eos_id: int = tokenizer.eos_token_id
        self.prefix_ids: list[int] = _prefix(tokenizer)
        """What the tokenizer puts before every text: BOS for Llama, nothing for GPT-2."""
        start_id = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.start_ids: list[int] = self.prefix_ids or [start_id]
        """What stands before a document, and what generation from nothing starts with."""
        special = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        self._special_ids = special.keys()
        # A typed mark is marked like a typed control token, so that each mark in a rendered text is ours.
        self._marked = [*sorted(special.values(), key=len, reverse=True), _MARK[0]]
        self._control = "|".join(map(re.escape, self._marked[:-1]))

    def literal(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode people's text: no token is added, and spelled-out control tokens stay ordinary characters."""
        return [encoding.ids for encoding in encodings(self.tokenizer, list(texts), framed=False)]

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode whole documents, each with a start token before it, so that its first word is learned, and EOS."""
        return [[*self.start_ids, *ids, self.eos_id] for ids in self.literal(texts)]

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode prompts as the model reads them before its answer; the separator of the style belongs to them."""
        before = self.start_ids if self.style.begins_document else self.prefix_ids
        return [[*before, *ids] for ids in self.literal([text + self.style.separator for text in texts])]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode answers; each ends with EOS, also where EOS and pad are the same id."""
        return [[*ids, self.eos_id] for ids in self.literal(texts)]

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[tuple[list[int], bool]]:
        """Encode a conversation as pieces (ids, learned): assistant turns with their terminator are learned.

        Each assistant turn is what the template adds to its own generation prompt, so the ids before it are exactly
        those that `chat_prompt` gives at generation.

        Raises:
            DataError: The template fails, or rewrites earlier turns so that the turns cannot be told apart.
        """
        pieces = []
        for number, (text, learned) in enumerate(self._turns(messages)):
            ids = self._templated(text, first=number == 0)
            pieces.append((self._terminated(ids) if learned else ids, learned))
        return pieces

    def chat_text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return a conversation that waits for the assistant's next turn as one text, control tokens spelled out.

        Cut as a whole, with the tokenizer's own start tokens before it, it gives the ids of `chat_prompt`, but where
        tokens merge across the border of an earlier answer.

        Raises:
            DataError: As `chat` does.
        """
        text = ""
        for turn, learned in self._turns(messages):
            if learned:
                # Behind a control token a text is one of its own also where all is cut at once.
                text += ("" if self._ends(text) else self._lead(turn)) + turn
                text += "" if self._ends(turn) else self.tokenizer.eos_token
            else:
                text += turn
        text = self._unmark(text + self._open_turn(messages))
        return text.removeprefix("".join(self.tokenizer.convert_ids_to_tokens(self.prefix_ids)))

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Encode a conversation that waits for the assistant's next turn.

        A template that rewrites earlier turns taught no answer behind them, and is followed as it stands.
        """
        try:
            pieces, rest = self.chat(messages), self._open_turn(messages)
        except _Rewritten:
            return self._templated(self._render(messages, open_answer=True), first=True)
        return [piece_id for piece, _ in pieces for piece_id in piece] + self._templated(rest, first=not pieces)

    def _turns(self, messages: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, bool]]:
        """Yield what the template writes up to each answer, and each answer with its terminator: text, learned."""
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            opened = self._render(messages[:index], open_answer=True)
            closed = self._render(messages[: index + 1], open_answer=False)
            if not (opened.startswith(done) and closed.startswith(opened)):
                raise _Rewritten
            answer = self._without_gap(closed[len(opened) :])
            yield opened[len(done) :], False
            yield answer, True
            done = opened + answer

    def _open_turn(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return what the template writes behind the last answer of `_turns`: what the next one is written after."""
        done = "".join(text for text, _ in self._turns(messages))
        opened = self._render(messages, open_answer=True)
        if not opened.startswith(done):
            raise _Rewritten
        return opened[len(done) :]

    def _without_gap(self, answer: str) -> str:
        """Cut the white space behind a turn's terminator: generation has stopped before it, so it is not learned."""
        ended = re.search(rf"({self._control})\s*$", answer)
        return answer[: ended.end(1)] if ended else answer

    def _ends(self, text: str) -> bool:
        """Whether a template ended an answer with a control token."""
        return re.search(rf"({self._control})\Z", text) is not None

    def _lead(self, text: str) -> str:
        """Return the space that the tokenizer puts before a text of its own, as SentencePiece does."""
        bare, spaced = self.literal(["a", " a"])
        puts = self.tokenizer.convert_ids_to_tokens(bare)[0].startswith(("▁", "Ġ"))
        return " " if puts and (bare != spaced or not text.startswith(" ")) else ""

    def _terminated(self, ids: list[int]) -> list[int]:
        """Add EOS where the template ends an assistant turn without a control token."""
        return ids if ids and ids[-1] in self._special_ids else [*ids, self.eos_id]

    def _render(self, messages: Sequence[Mapping[str, str]], *, open_answer: bool) -> str:
        """Return what the template makes of a conversation, with marks where people typed a control token."""
        try:
            return self.tokenizer.apply_chat_template(
                [{**message, "content": self._mark(message["content"])} for message in messages],
                chat_template=self.style.chat_template,
                tokenize=False,
                add_generation_prompt=open_answer,
            )
        except Exception as error:  # Jinja's own errors, and whatever a template raises on purpose
            raise DataError(f"the chat template refuses the conversation: {error}") from error

    def _mark(self, text: str) -> str:
        typed = "|".join(map(re.escape, self._marked))
        return re.sub(typed, lambda found: f"{_MARK[0]}{self._marked.index(found[0])}{_MARK[1]}", text)

    def _unmark(self, text: str) -> str:
        return re.sub(f"{_MARK[0]}([0-9]+){_MARK[1]}", lambda found: self._marked[int(found[1])], text)

    def _templated(self, text: str, first: bool = False) -> list[int]:
        """Encode text that a template wrote: its control tokens are meant, those that people typed are characters."""
        ids: list[int] = []
        meant = ""
        for part in re.split(f"({self._control})", text):
            if _MARK[0] in part:
                ids += [*self._with_control_tokens(meant), *self.literal([self._unmark(part)])[0]]
                meant = ""
            else:
                meant += part
        ids += self._with_control_tokens(meant)
        # A template that writes BOS itself must not get a second one.
        return [*self.prefix_ids, *ids] if first and ids[: len(self.prefix_ids)] != self.prefix_ids else ids

    def _with_control_tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids if text else []


def style_for(format_name: str, tokenizer: Any, separator: str) -> PromptStyle:
    """Return how rows of a format are framed with this tokenizer; the plain template where a chat one is missing."""
    if format_name == "chat":
        return PromptStyle(format="chat", chat_template=tokenizer.chat_template or PLAIN_CHAT_TEMPLATE)
    if format_name == "prompt_completion":
        return PromptStyle(format="prompt_completion", separator=separator)
    return PromptStyle(begins_document=True)


def _prefix(tokenizer: Any) -> list[int]:
    """Return the ids a tokenizer puts before a text, found by encoding a letter with and without them."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    framed = tokenizer("a").input_ids
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            return framed[:start]
    return []
