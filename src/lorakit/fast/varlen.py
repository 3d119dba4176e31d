"""Rows packed end to end, without padding: attention runs inside each row (segment) and never across a border.

One attention function is registered through transformers' `AttentionInterface`; since no mask function carries its
name, no mask is built. Its plain twin is padding with `sdpa` attention; `proves_isolated` holds both side by side.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

NAME = "lorakit_varlen"
"""Value of `attn_implementation` under which the packed attention is registered."""

_calls = 0


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    segment_lengths: tuple[int, ...] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each segment of one packed row.

    Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1) per segment. H is query heads, K
    key-value heads (a divisor of H), E the width of a head.

    Args:
        module: The attention layer; its `is_causal` counts where the argument is None.
        query: Shape (1, H, T, E).
        key: Shape (1, K, T, E).
        value: Shape (1, K, T, E).
        attention_mask: Must be None: borders are given by the lengths alone.
        dropout: Probability of dropping an attention weight, in [0, 1).
        scaling: Factor of the scores; None for 1 / sqrt(E).
        is_causal: Whether a position sees only itself and earlier ones.
        segment_lengths: Lengths that add up to T; None for one segment.
        sliding_window: Number of positions seen, itself included; None for all.
        softcap: Bound c of the scores, c * tanh(score / c); None for none.

    Returns:
        Shape (1, T, H, E), and None for the attention weights.
    """
    global _calls
    _calls += 1
    if attention_mask is not None or query.shape[0] != 1:
        raise ValueError("packed attention takes one row and no mask")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    lengths = segment_lengths or (query.shape[2],)
    # Under autocast a rotation of positions widens query and key (Llama), and value alone tells the dtype computed in.
    dtype = value.dtype
    # The processor's bfloat16 attention is slower and holds more (benchmarks/packed_steps.py: 0.6, 2.3 times).
    wide = dtype == torch.bfloat16 and query.device.type == "cpu"
    query, key, value = (projected.to(torch.float32 if wide else dtype) for projected in (query, key, value))
    pieces = []
    # Autocast would round again what has just been widened.
    with torch.autocast(query.device.type, enabled=False):
        for segment in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
            if softcap is None:
                pieces.append(_fused(*segment, dropout, scaling, causal, sliding_window))
            else:
                pieces.append(_capped(*segment, dropout, scaling, causal, sliding_window, softcap))
    return torch.cat(pieces, dim=2).transpose(1, 2).to(dtype).contiguous(), None


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Attend within one segment through torch's fused kernel; a mask is built only where a window hides something."""
    length = query.shape[2]
    windowed = window is not None and length > window
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_visible(length, causal, window, query.device) if windowed else None,
        dropout_p=dropout,
        is_causal=causal and not windowed,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _visible(length: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """Return which positions see which, shape (T, T), bool."""
    distance_TT = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
    seen_TT = distance_TT >= 0 if causal else torch.ones_like(distance_TT, dtype=torch.bool)
    return seen_TT if window is None else seen_TT & (distance_TT.abs() < window)


def _capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    causal: bool,
    window: int | None,
    softcap: float,
) -> Tensor:
    """Attend with bounded scores (Gemma 2, arXiv:2408.00118, section 2), which no fused kernel offers on the CPU."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (1 / math.sqrt(query.shape[-1]) if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~_visible(query.shape[2], causal, window, query.device), -torch.inf)
    weights = functional.dropout(scores.float().softmax(dim=-1).to(query.dtype), dropout)
    return weights @ value


AttentionInterface.register(NAME, attend)


def proves_isolated(model: nn.Module, layers: int, vocabulary: int) -> str:
    """Compare a packed forward of two segments with the two alone; return why packing must not be used, or "".

    Some model types ignore a registered attention function without an error and would let rows see each other, so
    each run proves its own: same scores, and one call a layer.

    Args:
        model: In eval mode, loaded with `attn_implementation` = `NAME`.
        layers: Number of attention layers expected.
        vocabulary: Size of the embedding.
    """
    global _calls
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    first_T = torch.randint(0, vocabulary, (5,), generator=generator)
    second_T = torch.randint(0, vocabulary, (7,), generator=generator)
    try:
        with torch.no_grad():
            alone = [_scores(model, (ids_T,), device) for ids_T in (first_T, second_T)]
            _calls = 0
            packed_TO = _scores(model, (first_T, second_T), device)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        return f"this model type refuses it ({error})"
    if _calls != layers:
        return f"its attention does not go through the interface ({_calls} calls for {layers} layers)"
    if packed_TO.shape[0] != len(first_T) + len(second_T):
        return "its scores are of whole rows, not of positions"
    difference = (packed_TO - torch.cat(alone)).abs().max().item()
    bound = 1e-4 * max(1.0, packed_TO.abs().max().item())
    return "" if difference <= bound else f"packed and single rows differ by {difference:.1e}"


def _scores(model: nn.Module, segments: tuple[Tensor, ...], device: torch.device) -> Tensor:
    """Return the first output of segments packed into one row, scores or states, shape (T, O) or (T,), float32."""
    lengths = tuple(len(ids_T) for ids_T in segments)
    output = model(
        input_ids=torch.cat(segments)[None].to(device),
        position_ids=positions(lengths)[None].to(device),
        segment_lengths=lengths,
        use_cache=False,
    )
    first: Tensor = output[0][0]
    return first.float()


def positions(lengths: tuple[int, ...]) -> Tensor:
    """Return positions that start at 0 in every segment, shape (T,), int64."""
    return torch.cat([torch.arange(length) for length in lengths])
