"""The control tokens around text, added to ids that were encoded without them: windows and pairs are cut in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

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
    def of(cls, tokenizer: Any, pair: bool = False) -> Self:
        """Find the frame of one text, or of a `pair`, by encoding a letter."""
        texts = ("a", "a") if pair else ("a",)
        encoded = tokenizer(*texts, return_special_tokens_mask=True, return_token_type_ids=True)
        ids, control, types = encoded.input_ids, encoded.special_tokens_mask, encoded.token_type_ids
        text = [place for place, is_control in enumerate(control) if not is_control]
        gap = [place for place in range(text[0], text[-1]) if control[place]]
        between = gap[0] if gap else text[0]
        return cls(
            before=tuple(ids[: text[0]]),
            between=tuple(ids[place] for place in gap),
            after=tuple(ids[text[-1] + 1 :]),
            types=tuple(types[place] for place in (0, text[0], between, text[-1], -1)),
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
