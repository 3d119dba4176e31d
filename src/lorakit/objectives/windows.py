"""Long texts in windows that overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorakit.data.framing import Framed
from lorakit.errors import DataError


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a text, framed like the whole."""

    framed: Framed
    """What the model reads."""
    begin: int
    """Number of its first token of text, counted from the first token of the whole text."""
    end: int
    """Number of the token behind its last one."""
    first: int
    """Position, in `framed`, of token `begin`."""

    @property
    def text(self) -> slice:
        """Positions of its tokens of text in `framed`."""
        return slice(self.first, self.first + self.end - self.begin)


def windows(framed: Framed, text_T: np.ndarray, max_length: int, shared: int) -> list[Window]:
    """Cut a text into windows so that each of its tokens is in one at least.

    Args:
        framed: The whole text, or the pair whose second text is cut.
        text_T: Whether a token belongs to the text that is cut, which lies in one piece, shape (T,), bool.
        max_length: Longest window in tokens, what frames it included.
        shared: Tokens that two neighbouring windows share at least; half of a window where that is less.

    Raises:
        DataError: There is no room for a token of the text beside what frames it.
    """
    length = int(text_T.sum())
    room = max_length - len(framed) + length
    if room < 1:
        raise DataError(
            f"max_length {max_length:,} leaves no room for text beside the {len(framed) - length:,} tokens before and "
            f"after it. Raise data.max_length."
        )
    last = max(length - room, 0)
    step = room - min(shared, room // 2)
    return [window(framed, text_T, begin, min(begin + room, length)) for begin in (*range(0, last, step), last)]


def window(framed: Framed, text_T: np.ndarray, begin: int, end: int) -> Window:
    """Return the window of tokens `begin` to `end` of the text."""
    first = int(text_T.argmax())
    kept_T = ~text_T
    kept_T[first + begin : first + end] = True
    return Window(framed.chosen(kept_T), begin, end, first)
