"""torch's kernel for rows of several segments, `torch.nn.attention.varlen`, on a GPU: all of them in one launch.

Its plain twin is `varlen.attend`, which goes segment by segment.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor


def fits(width: int) -> bool:
    """Whether the kernel takes heads of so many features."""
    return width % 8 == 0 and width <= 256


@cache
def lacks(device: torch.device) -> str:
    """Return why there is no kernel for packed rows on a GPU, or ""."""
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU is older than torch's kernel for packed rows (compute capability 8.0)"
    return "" if found() is not None else f"torch {torch.__version__} has no kernel for packed rows"


@cache
def found() -> Callable[..., Tensor] | None:
    """Return `torch.nn.attention.varlen.varlen_attn` where it takes windows (torch 2.11), or None."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    taken = inspect.signature(varlen_attn).parameters.keys()
    if not {"scale", "window_size"} <= taken:
        return None
    plain = cast(Callable[..., Tensor], varlen_attn)
    return plain if "enable_gqa" in taken else _repeating(plain)


def _repeating(varlen_attn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the kernel of torch 2.11, which says nothing of fewer keys than queries, as that of later ones."""

    def attend_all(query: Tensor, key: Tensor, value: Tensor, *rest: Any, enable_gqa: bool, **how: Any) -> Tensor:
        if enable_gqa:
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        return varlen_attn(query, key, value, *rest, **how)

    return attend_all


def attend(
    varlen_attn: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    scaling: float | None,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Attend within all segments at once, without dropout, bias and bound of the scores; shape (1, T, H, E).

    Args:
        varlen_attn: `found`.
        query: Shape (1, H, T, E).
        key: Shape (1, K, U, E).
        value: Shape (1, K, U, E).
        borders: Of the segments of `query` and of those of `key`, shape (S + 1,) each, int32.
        longest: Lengths of the longest segment of both.
        scaling: As in `attend`.
        causal: Whether a position sees only itself and earlier ones.
        window: As in `attend`.
    """
    # A window counts the position itself, the kernel those beside it; -1 stands for all.
    beside = -1 if window is None else window - 1
    one, two, three = (each[0].transpose(0, 1).to(value.dtype) for each in (query, key, value))
    attended_THE = varlen_attn(
        one,
        two,
        three,
        *borders,
        *longest,
        scale=scaling,
        window_size=(beside, 0 if causal else beside),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return attended_THE[None]
