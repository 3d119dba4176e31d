"""Few shapes in place of many: sizes are rounded up, by rows that nobody reads.

A processor's library compiles and keeps a kernel for each shape it meets. Packed rows differ in length at every step,
so that a long run held gigabytes of kernels. Measured on the tiny model in bfloat16, medians of three: 1,763 MB
after 60 steps of all lengths and 765 MB with rounded ones, at 0.9 of the speed (benchmarks/packed_steps.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from lorakit.fast.varlen import Segments

GRAIN = 64
"""Sizes are multiples of this."""


def rounded_up(size: int) -> int:
    """Return the next multiple of `GRAIN`."""
    return size + -size % GRAIN


def rounded(positions_L: Tensor) -> Tensor:
    """Return `positions_L` with position 0 appended up to a multiple of `GRAIN`; the caller leaves these scores out."""
    return functional.pad(positions_L, (0, rounded_up(len(positions_L)) - len(positions_L)))


def rounded_row(
    inputs: Mapping[str, Tensor], lengths: tuple[int, ...], written: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Return the arguments of a packed row, rounded up by one more segment that no other segment sees.

    Args:
        inputs: ``input_ids`` and the like, shape (1, T); of an encoder-decoder ``decoder_input_ids`` too, shape (1, U).
        lengths: Lengths of the segments, which add up to T.
        written: Lengths of an encoder-decoder's targets, which add up to U.

    Returns:
        The same with ``segment_lengths`` (`fast/varlen.py`), T and U multiples of `GRAIN`; U is another than T.
    """
    # A segment to write has one to read beside it, so both rows get one more.
    width = rounded_up(sum(lengths) + (1 if written else 0))
    segments = {width: _filled(lengths, width)}
    if written:
        wide = rounded_up(sum(written) + 1)
        wide += GRAIN if wide == width else 0
        segments[wide] = _filled(written, wide)
    padded = {}
    for name, value in inputs.items():
        room = wide if written and name.startswith("decoder_") else width
        padded[name] = functional.pad(value, (0, room - value.shape[1]))
    return {**padded, "segment_lengths": Segments(segments, inputs["input_ids"].device)}


def _filled(lengths: tuple[int, ...], width: int) -> tuple[int, ...]:
    """Return the lengths with one more segment up to `width`."""
    extra = width - sum(lengths)
    return (*lengths, extra) if extra else lengths
