"""The verb `chat`: a conversation that is kept, and cut at its beginning when the model can read no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.errors import DataError, LorakitError
from lorakit.generation.settings import DecodingSettings

if TYPE_CHECKING:
    from lorakit.workflows.completions import Completion
    from lorakit.workflows.generating import Writer


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what had to be left behind for it."""

    completion: Completion
    dropped: int
    """Oldest turns, of a user and an assistant each, that no longer fitted the model's positions."""


class Conversation:
    """Turns with one target.

    A target that knows conversations reads all turns so far. One that was trained on prompts and answers reads each
    turn as a prompt of its own.
    """

    def __init__(self, writer: Writer, settings: DecodingSettings) -> None:
        if settings.num_samples > 1 or settings.num_beams > 1:
            raise LorakitError(
                "a conversation has one answer a turn, shown as it comes; leave num_samples and num_beams."
            )
        self.writer = writer
        self.settings = settings
        self.system = ""
        """What the target is told before all turns; empty: nothing."""
        self.turns: list[tuple[str, str]] = []
        """What was said and answered since the last reset."""
        self._first_read = 0
        self._asked = 0

    def ask(self, text: str, on_text: Callable[[str], None] | None = None) -> Reply:
        """Say `text` and return the answer; a turn that is interrupted is kept with what was answered so far.

        Raises:
            LorakitError: The text alone is longer than the model's positions.
        """
        from lorakit.generation.answers import Watcher

        prompt, dropped = self._prompt(text)
        pieces: list[str] = []

        def keep(_prompt: int, _sample: int, piece: str) -> None:
            pieces.append(piece)
            if on_text is not None:
                on_text(piece)

        # Each turn has draws of its own, and the whole conversation is repeatable.
        settings = self.settings.model_copy(update={"seed": self.settings.seed + self._asked})
        self._asked += 1
        try:
            [completion] = self.writer.write([prompt], settings, watcher=Watcher(on_text=keep))
        except KeyboardInterrupt:
            self.turns.append((text, "".join(pieces)))
            raise
        self.turns.append((text, completion.text))
        return Reply(completion, dropped)

    def reset(self) -> None:
        """Forget all turns; what the system was told stays."""
        self.turns.clear()
        self._first_read = 0

    def tell_system(self, text: str) -> None:
        """Set what the target is told before all turns.

        Raises:
            LorakitError: The target knows no conversations.
        """
        if not self.writer.chats:
            raise LorakitError("this model was not trained on conversations and has no place for a system text.")
        self.system = text

    def save(self, path: Path) -> None:
        """Write the turns as JSONL that can be trained on: one `messages` row, or a `prompt`, `completion` row a turn.

        Raises:
            DataError: There are no turns, the file exists or cannot be written.
        """
        if not self.turns:
            raise DataError("there is nothing to save yet.")
        if self.writer.chats:
            rows: list[dict[str, object]] = [{"messages": self._messages(0)}]
        else:
            rows = [{"prompt": said, "completion": answered} for said, answered in self.turns]
        try:
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        except FileExistsError:
            raise DataError(f"{path} exists; give another name.") from None
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None

    def _prompt(self, text: str) -> tuple[str | list[dict[str, str]], int]:
        """Return what the model reads for the next turn, and how many old turns were dropped to make it fit."""
        if not self.writer.chats:
            return text, 0
        before = self._first_read
        while self._first_read < len(self.turns) and not self._fits(self._messages(self._first_read, text)):
            self._first_read += 1
        return self._messages(self._first_read, text), self._first_read - before

    def _fits(self, messages: list[dict[str, str]]) -> bool:
        """Whether the messages leave room for an answer: all of `max_new_tokens`, or a quarter of the positions."""
        limit = self.writer.limit
        if limit is None:
            return True
        room = min(self.settings.max_new_tokens, limit // 4)
        return len(self.writer.encode_any(messages)) + room <= limit

    def _messages(self, first: int, text: str | None = None) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for said, answered in self.turns[first:]:
            messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
        return messages if text is None else [*messages, {"role": "user", "content": text}]
