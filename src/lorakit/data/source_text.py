"""Sources and targets of encoder-decoder models, framed by the tokenizer's own way: T5 ends both with EOS."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from lorakit.data.framing import Framed, FramedEncoder
from lorakit.errors import DataError


class SourceEncoder:
    """Turns texts into what an encoder-decoder reads and writes, for training and generation alike.

    Text typed by people never becomes a control token: ``</s>`` inside a row is four characters.

    Args:
        tokenizer: A fast transformers tokenizer with an end-of-sequence token.
        prefix: Text put before every source, such as ``translate Korean to English: ``.
        language: Id of the language to write, where targets end with one (mBART); None: the tokenizer's own.

    Raises:
        DataError: The tokenizer has no end-of-sequence token, so that nothing could be taught to stop.
    """

    def __init__(self, tokenizer: Any, prefix: str = "", language: int | None = None) -> None:
        if tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end-of-sequence token, so the model could never learn to stop. "
                "Set eos_token in the checkpoint's tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.prefix = prefix
        self.eos_id: int = tokenizer.eos_token_id
        self._framed = FramedEncoder(tokenizer)
        before, after = _frame(tokenizer, "text")
        self._source_frame = (before, after if before or after else [self.eos_id])
        before, after = _frame(tokenizer, "text_target")
        if language is not None and self.eos_id in after[:-1]:
            after[-1] = language
        self._target_frame = (before, after if self.eos_id in after else [*after, self.eos_id])

    def sources(self, texts: Sequence[str], keep: Collection[str] = ()) -> list[Framed]:
        """Return sources as the encoder reads them, the task prefix before each; never empty.

        Where the tokenizer frames nothing at all, EOS ends the source.

        Args:
            texts: As people typed them.
            keep: Control tokens that are meant where they are typed, such as ``<extra_id_0>``.
        """
        framed = self._framed.singles([self.prefix + text for text in texts], keep, placed=False)
        return [self._ended(each) if each.of_text.all() else each for each in framed]

    def gaps(self) -> list[str]:
        """Return the control tokens that stand for a gap in a text: T5's sentinels, and the mask."""
        names = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        mask = self.tokenizer.mask_token
        return [name for name in names if name.startswith("<extra_id_") or name == mask]

    def targets(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return what the decoder shall write, EOS included, shape (U,), int32 each.

        The tokenizer frames targets in its own way: BART begins with ``<s>``, mBART ends with EOS and the language.
        """
        return [self.as_target(ids) for ids in self.bare(texts)]

    def bare(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of texts without any frame or prefix, shape (T,), int32 each."""
        return [framed.ids[framed.of_text] for framed in self._framed.singles(texts, placed=False)]

    def as_source(self, ids: np.ndarray) -> np.ndarray:
        """Frame ids as the tokenizer frames a source, shape (T,), int32."""
        before, after = self._source_frame
        return np.concatenate((before, ids, after)).astype(np.int32)

    def as_target(self, ids: np.ndarray) -> np.ndarray:
        """Frame ids as the tokenizer frames a target, shape (U,), int32; EOS is among them."""
        before, after = self._target_frame
        return np.concatenate((before, ids, after)).astype(np.int32)

    def _ended(self, framed: Framed) -> Framed:
        return Framed(
            ids=np.append(framed.ids, np.int32(self.eos_id)),
            segments=np.append(framed.segments, np.int32(0)),
            offsets=np.append(framed.offsets, np.full((1, 2), -1, dtype=np.int32), axis=0),
            words=np.append(framed.words, np.int32(-1)),
            second=np.append(framed.second, False),
        )


def _frame(tokenizer: Any, role: str) -> tuple[list[int], list[int]]:
    """Return the ids before and after a text (`role` is ``text`` or ``text_target``), found by encoding a letter."""
    bare = tokenizer(**{role: "a"}, add_special_tokens=False).input_ids
    framed = tokenizer(**{role: "a"}).input_ids
    start = next(start for start in range(len(framed)) if framed[start : start + len(bare)] == bare)
    return framed[:start], framed[start + len(bare) :]
