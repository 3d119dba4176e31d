"""Token ids to text while they arrive: whole characters only, and nothing beyond a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorakit.generation.stopping import StopFinder

UNFINISHED = "\ufffd"
"""What a decoder puts where the bytes of a character are not all there yet."""


class TextStream:
    """The text of one answer.

    The pieces joined are the answer's text, however its tokens were dealt out over the calls. A character spread over
    several tokens (Korean, emoji) comes out with its last token. Special tokens have no text.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        """Begin an answer.

        Args:
            tokenizer: A transformers tokenizer.
            stops: Texts that end the answer.
            context: Ids the answer goes on from. SentencePiece drops a space at the beginning of a text; with its
                context known, an answer that goes on mid-sentence keeps it.
        """
        self._tokenizer = tokenizer
        self._finder = StopFinder(stops)
        self._ids = list(context)
        self._start = 0
        self._shown = len(self._ids)

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found."""
        return self._finder.found is not None

    def push(self, *tokens: int) -> str:
        """Take the next tokens; returns the text that became certain, possibly empty."""
        self._ids.extend(tokens)
        return self._finder.push(self._new_text(at_end=False))

    def close(self) -> str:
        """Return the rest of the text, now that no more tokens come."""
        return self._finder.push(self._new_text(at_end=True)) + self._finder.close()

    def _new_text(self, at_end: bool) -> str:
        # Both are decoded from the same start, so a space dropped there is dropped twice and cancels out.
        before = self._decode(self._ids[self._start : self._shown])
        after = self._decode(self._ids[self._start :])
        if (after.endswith(UNFINISHED) and not at_end) or len(after) <= len(before):
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        return after[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
