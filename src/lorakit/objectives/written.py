"""What objectives of encoder-decoders share: the encoder reads a source, the decoder writes a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lorakit.errors import CheckpointError
from lorakit.objectives.base import laid, read_by_model
from lorakit.types import Batch

_WRAPPING = ("mbart", "plbart")
"""Types whose decoder begins with the last token of its target, the language."""


def start_of(config: Mapping[str, Any]) -> int | None:
    """Return the id that a decoder begins with; None where it begins with the last token of its target.

    Args:
        config: config.json of the checkpoint.

    Raises:
        CheckpointError: It does not say.
    """
    if config.get("model_type") in _WRAPPING:
        return None
    start = config.get("decoder_start_token_id")
    if start is None:
        raise CheckpointError(
            "config.json has no decoder_start_token_id, so it cannot be told what the decoder begins with. Add it: for "
            "T5 the id of its padding token, for BART that of </s>."
        )
    return int(start)


def side_by_side(
    sources: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    rows: Sequence[int],
    start: int | None,
    padding: int,
    packed: bool = False,
) -> Batch:
    """Lay sources, and targets shifted by one, end to end in two rows (`packed`), or one below the other, padded.

    Labels are set by position, never by token id, so that EOS is learned also where it is the padding. What a decoder
    reads is not masked: padding stands behind all that is learned.

    Args:
        sources: What the encoder reads, shape (T,) each.
        targets: What the decoder writes, its end included, shape (U,) each.
        rows: Number of each row.
        start: What a decoder begins with; None: the last token of its target.
        padding: Id that fills the places of shorter rows.
        packed: Whether they lie end to end.
    """
    import torch

    inputs, _ = read_by_model(sources, packed, padding)
    # Models of this kind that pack count distances, not positions.
    inputs.pop("position_ids", None)
    shifted = [np.concatenate(([target[-1] if start is None else start], target[:-1])) for target in targets]
    read_BU, starts_B = laid(shifted, packed, padding)
    positions_L = np.concatenate([begin + np.arange(len(row)) for begin, row in zip(starts_B, targets, strict=True)])
    return Batch(
        inputs={**inputs, "decoder_input_ids": torch.from_numpy(read_BU)},
        targets={
            "positions_L": torch.from_numpy(positions_L.astype(np.int64)),
            "targets_L": torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        },
        lengths=tuple(map(len, sources)) if packed else (),
        rows=tuple(rows),
        tokens=sum(map(len, sources)) + sum(map(len, targets)),
        written=tuple(map(len, targets)) if packed else (),
    )
