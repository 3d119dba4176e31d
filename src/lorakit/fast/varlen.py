"""Rows packed end to end, without padding: attention runs inside each row (segment) and never across a border.

One attention function is registered through transformers' `AttentionInterface`; since no mask function carries its
name, no mask is built. Its plain twin is padding with `sdpa` attention; each run proves it first (`isolation.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from lorakit.fast import varlen_kernel, widened

NAME = "lorakit_varlen"
"""Value of `attn_implementation` under which the packed attention is registered."""


class Segments(Mapping[int, tuple[int, ...]]):
    """Width of a packed row -> lengths of its segments, which add up to it.

    An encoder-decoder has two rows at once, of different widths, so that each attention tells by the width what it
    reads. A compiler looks into a dictionary, and would compile anew for other lengths; in here it sees a tensor and a
    number (`fast/compiled.py`).

    Args:
        by_width: At least one row.
        device: Where the rows are.
    """

    def __init__(self, by_width: Mapping[int, tuple[int, ...]], device: torch.device) -> None:
        self._by_width = dict(by_width)
        first, *_ = by_width.values()
        self.borders = borders_of(first, device)
        """Of the first row: where its segments begin and the last one ends, shape (S + 1,), int32."""
        self.longest = max(first)
        """Length of its longest segment."""

    def __getitem__(self, width: int) -> tuple[int, ...]:
        return self._by_width[width]

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_width)

    def __len__(self) -> int:
        return len(self._by_width)


calls = 0
"""How often `attend` was called: what `fast/isolation.py` counts."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    segment_lengths: Mapping[int, tuple[int, ...]] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each segment of one packed row, or from each segment of one row to its partner in another.

    Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1) per segment. H is query heads, K
    key-value heads (a divisor of H), E the width of a head.

    Args:
        module: The attention layer; its `is_causal` counts where the argument is None.
        query: Shape (1, H, T, E).
        key: Shape (1, K, U, E); U is T, but where a decoder attends to its encoder.
        value: Shape (1, K, U, E).
        attention_mask: Must be None: borders are given by the lengths alone.
        dropout: Probability of dropping an attention weight, in [0, 1).
        scaling: Factor of the scores; None for 1 / sqrt(E).
        is_causal: Whether a position sees only itself and earlier ones.
        segment_lengths: Lengths by the width of the row that they add up to; None for one segment.
        sliding_window: Number of positions seen, itself included; None for all.
        softcap: Bound c of the scores, c * tanh(score / c); None for none.
        position_bias: Added to the scores, as large as the longest segment at least (`fast/relative.py`), shape
            (1, H, T, U); None or empty for none.

    Returns:
        Shape (1, T, H, E), and None for the attention weights.
    """
    global calls
    calls += 1
    if attention_mask is not None or query.shape[0] != 1:
        raise ValueError("packed attention takes one row and no mask")
    widths = [projected.shape[2] for projected in (query, key, value)]
    lengths = [segment_lengths[width] if segment_lengths else (width,) for width in widths]
    how = _How(
        dropout=dropout,
        scaling=scaling,
        causal=getattr(module, "is_causal", True) if is_causal is None else is_causal,
        window=sliding_window,
        softcap=softcap,
        bias=position_bias if position_bias is not None and position_bias.numel() else None,
    )
    varlen_attn = varlen_kernel.found() if _kernel_fits(query, value, how) else None
    if varlen_attn is not None:
        borders = (borders_of(lengths[0], query.device), borders_of(lengths[1], query.device))
        longest = (max(lengths[0]), max(lengths[1]))
        return varlen_kernel.attend(
            varlen_attn, query, key, value, borders, longest, how.scaling, how.causal, how.window
        ), None
    # Under autocast a rotation of positions widens query and key (Llama), and value alone tells the dtype computed in.
    dtype = value.dtype
    # The processor's bfloat16 attention is slower and holds more (benchmarks/packed_steps.py: 0.6, 2.3 times).
    wide = dtype == torch.bfloat16 and query.device.type == "cpu"
    if wide and _is_plain(how, lengths[1]) and widened.fits(module, query, key, value):
        attended = widened.attend(query, key, value, lengths[0], lengths[1], how.causal, how.scaling)
        return attended.transpose(1, 2).to(dtype).contiguous(), None
    projected = (each.to(torch.float32 if wide else dtype) for each in (query, key, value))
    parts = [each.split(segments, 2) for each, segments in zip(projected, lengths, strict=True)]
    # Autocast would round again what has just been widened.
    with torch.autocast(query.device.type, enabled=False):
        pieces = [_within(one, two, three, how) for one, two, three in zip(*parts, strict=True)]
    return torch.cat(pieces, dim=2).transpose(1, 2).to(dtype).contiguous(), None


@dataclass(frozen=True, slots=True)
class _How:
    """What `attend` was asked for, the same for every segment."""

    dropout: float
    scaling: float | None
    causal: bool
    window: int | None
    softcap: float | None
    bias: Tensor | None


def _is_plain(how: _How, seen: tuple[int, ...]) -> bool:
    """Whether nothing is dropped, hidden, bounded or added."""
    whole = how.window is None or max(seen) <= how.window
    return whole and how.dropout == 0.0 and how.softcap is None and how.bias is None


def _kernel_fits(query: Tensor, value: Tensor, how: _How) -> bool:
    """Whether torch's kernel for rows of several segments computes this; its plain twin goes segment by segment."""
    return (
        query.is_cuda
        and value.dtype in (torch.bfloat16, torch.float16)
        and varlen_kernel.fits(value.shape[-1])
        and how.dropout == 0.0
        and how.softcap is None
        and how.bias is None
        and not varlen_kernel.lacks(query.device)
    )


@lru_cache(maxsize=16)
def borders_of(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where segments begin and the last one ends, shape (S + 1,), int32; kept for the layers above."""
    borders = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    # From pinned memory a GPU takes it without the processor waiting for all that was launched before.
    return borders.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else borders.to(device)


def _within(query: Tensor, key: Tensor, value: Tensor, how: _How) -> Tensor:
    """Attend from one segment to itself or to its partner, through torch's fused kernel where there is one.

    A mask is built only where a window hides something, or a bias stands on the scores.
    """
    if how.softcap is not None:
        return _capped(query, key, value, how, how.softcap)
    length = query.shape[2]
    windowed = how.window is not None and length > how.window
    mask = _visible(length, how.causal, how.window, query.device) if windowed else None
    if how.bias is not None:
        # It depends on distance alone, so the corner that is as large as the segment is the segment's.
        mask = how.bias[:, :, :length, : key.shape[2]].to(query.dtype)
        if how.causal:
            mask = mask.masked_fill(~_visible(length, True, None, query.device), -torch.inf)
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=how.dropout,
        is_causal=how.causal and mask is None,
        scale=how.scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _visible(length: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """Return which positions see which, shape (T, T), bool."""
    distance_TT = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
    seen_TT = distance_TT >= 0 if causal else torch.ones_like(distance_TT, dtype=torch.bool)
    return seen_TT if window is None else seen_TT & (distance_TT.abs() < window)


def _capped(query: Tensor, key: Tensor, value: Tensor, how: _How, softcap: float) -> Tensor:
    """Attend with bounded scores (Gemma 2, arXiv:2408.00118, section 2), which no fused kernel offers on the CPU."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = 1 / math.sqrt(query.shape[-1]) if how.scaling is None else how.scaling
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * scale / softcap)
    scores = scores.masked_fill(~_visible(query.shape[2], how.causal, how.window, query.device), -torch.inf)
    weights = functional.dropout(scores.float().softmax(dim=-1).to(query.dtype), how.dropout)
    return weights @ value


AttentionInterface.register(NAME, attend)


def positions(lengths: tuple[int, ...]) -> Tensor:
    """Return positions that start at 0 in every segment, shape (T,), int64."""
    return torch.cat([torch.arange(length) for length in lengths])
