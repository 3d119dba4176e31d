"""Attention in float32 over states in bfloat16, of which no float32 copy is kept for the backward pass.

A processor attends faster in float32, and a bfloat16 number is a float32 one: it is widened again where it is needed,
at half the memory in between. The plain twin is `scaled_dot_product_attention` of widened states, which keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# What `scaled_dot_product_attention` itself calls on a processor.
_forward: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_backward: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


calls = 0
"""How often `attend` was called: what `fast/isolation.py` counts."""

_OFF = "keeps_wide_states"


def switch_off(model: nn.Module) -> None:
    """Let the attention of `model` keep its states in float32, as the plain twin does."""
    for module in model.modules():
        setattr(module, _OFF, True)


def fits(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attend` takes such states in an attention layer; without dropout, mask and bias they have to be too."""
    alike = query.shape[1] == key.shape[1] and query.shape[-1] == key.shape[-1] == value.shape[-1]
    return (
        alike
        and not hasattr(module, _OFF)
        and value.dtype == torch.bfloat16
        and _forward is not None
        and _backward is not None
    )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    read: Sequence[int],
    seen: Sequence[int],
    causal: bool,
    scaling: float | None,
) -> Tensor:
    """Attend within each segment (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Args:
        query: Shape (1, H, T, E), bfloat16 or float32.
        key: Shape (1, H, U, E).
        value: Shape (1, H, U, E).
        read: Lengths of the segments of `query`, which add up to T.
        seen: Lengths of those of `key`, which add up to U.
        causal: Whether a position sees only itself and earlier ones.
        scaling: Factor of the scores; None for 1 / sqrt(E).

    Returns:
        Shape (1, H, T, E), float32.
    """
    global calls
    calls += 1
    made: Tensor = _Attention.apply(query, key, value, tuple(read), tuple(seen), causal, scaling)
    return made


def _segments(
    states: Sequence[Tensor], read: Sequence[int], seen: Sequence[int]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return query, key and value of each segment in float32."""
    split = [each.float().split(list(lengths), 2) for each, lengths in zip(states, (read, seen, seen), strict=True)]
    return list(zip(*split, strict=True))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *how: Any) -> Tensor:
        read, seen, causal, scaling = how
        with torch.autocast(query.device.type, enabled=False):
            parts = _segments((query, key, value), read, seen)
            made = [_forward(*part, 0.0, causal, attn_mask=None, scale=scaling) for part in parts]
        ctx.how = how
        outputs, sums = zip(*made, strict=True)
        ctx.save_for_backward(query, key, value, *outputs, *sums)
        return torch.cat(outputs, dim=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        read, seen, causal, scaling = ctx.how
        query, key, value, *kept = ctx.saved_tensors
        outputs, sums = kept[: len(read)], kept[len(read) :]
        parts = _segments((query, key, value), read, seen)
        slopes = [
            _backward(slope, *part, output, total, 0.0, causal, attn_mask=None, scale=scaling)
            for slope, part, output, total in zip(above.split(list(read), 2), parts, outputs, sums, strict=True)
        ]
        found = [torch.cat(each, dim=2) for each in zip(*slopes, strict=True)]
        return (*(each.to(state.dtype) for each, state in zip(found, (query, key, value), strict=True)), *(None,) * 4)
