"""The control tokens around text, added to ids that were encoded without them: windows and pairs are cut in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from lorakit.data.framing import FramedEncoder

_NOTHING = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a tokenizer puts around one text, or around and between two."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, ...]
    """Token types of each stretch: before, first text, between, second text, after."""

    @classmethod
    def of(cls, encoder: FramedEncoder, pair: bool = False) -> Self:
        """Find the frame of one text, or of a `pair`, by encoding a letter."""
        framed = encoder.pairs(["a"], ["a"])[0] if pair else encoder.singles(["a"])[0]
        first, last = np.flatnonzero(framed.of_text)[[0, -1]]
        gap = first + np.flatnonzero(~framed.of_text[first:last])
        return cls(
            before=tuple(framed.ids[:first]),
            between=tuple(framed.ids[gap]),
            after=tuple(framed.ids[last + 1 :]),
            types=tuple(framed.segments[[0, first, gap[0] if len(gap) else first, last, -1]]),
        )

    def __len__(self) -> int:
        """Control tokens."""
        return len(self.before) + len(self.between) + len(self.after)

    def laid(self, first: np.ndarray, second: np.ndarray = _NOTHING, control: int | None = None) -> np.ndarray:
        """Put the frame, or `control` in each of its places, around one array or two of shape (T,); int32."""
        before, between, after = (
            ids if control is None else (control,) * len(ids) for ids in (self.before, self.between, self.after)
        )
        return np.concatenate((before, first, between, second, after)).astype(np.int32)

    def segments(self, first: int, second: int) -> np.ndarray:
        """Return the token types of two texts of so many tokens in their frame, shape (T,), int32."""
        lengths = (len(self.before), first, len(self.between), second, len(self.after))
        return np.repeat(self.types, lengths).astype(np.int32)
