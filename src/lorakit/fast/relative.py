"""T5's relative bias beside packed rows: it depends on distance alone, so one for the longest segment serves them all.

Left to itself T5 would compute a bias over the whole row, T x T, and zeros of that size where a decoder attends to its
encoder. A hook puts the small one in its place; `varlen.attend` takes the corner that each segment needs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lorakit.fast.varlen import Segments


def prepare(model: nn.Module) -> None:
    """Give every relative attention of `model` its hook; no number changes, and without packed rows nothing at all."""
    for module in model.modules():
        if hasattr(module, "has_relative_attention_bias"):
            module.register_forward_pre_hook(_with_small_bias, with_kwargs=True)


def _with_small_bias(module: Any, arguments: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of a T5 attention with the bias of its longest segment, unless a lower layer made it."""
    segments = given.get("segment_lengths")
    if segments is None or given.get("position_bias") is not None:
        return arguments, given
    hidden_1TD: Tensor = arguments[0]
    bias = hidden_1TD.new_empty(0)
    if given.get("key_value_states") is None and module.has_relative_attention_bias:
        bias = bias_of(module, hidden_1TD, segments)
    return arguments, {**given, "position_bias": bias}


def attention_in(block: nn.Module) -> Any:
    """Return the relative attention of which a block hands the bias on to those above it; None where it has none."""
    return next((part for part in block.modules() if getattr(part, "has_relative_attention_bias", False)), None)


def bias_of(attention: Any, hidden_BTD: Tensor, segments: Segments | None) -> Tensor:
    """Return the bias of `attention` for its longest segment, or for the whole row, shape (1, H, T, T)."""
    longest = max(segments[hidden_BTD.shape[1]]) if segments else hidden_BTD.shape[1]
    bias: Tensor = attention.compute_bias(longest, longest, device=hidden_BTD.device)
    return bias
