"""Scores over the vocabulary at labelled positions only: prompt tokens never meet the largest matrix of the model.

A hook selects hidden states right before the output layer, so that the model's own scaling, bias and soft-capping
still apply to what is left. The plain twin computes all logits and selects afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn


@contextmanager
def labelled_only(model: nn.Module, positions_L: Tensor) -> Iterator[None]:
    """Within this block the output layer sees the hidden states of `positions_L` alone, as one row.

    Args:
        model: A transformers model, also inside PEFT's or DDP's wrapper.
        positions_L: Flat indices over B * T, shape (L,), int64.

    Yields:
        Nothing; the model's `logits` have shape (1, L, V) meanwhile.
    """

    def select(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD = arguments[0]
        return (hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).index_select(0, positions_L)[None], *arguments[1:])

    handle = output_layer(model).register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def output_layer(model: Any) -> nn.Module:
    """Return the layer that scores the vocabulary, through any wrapper."""
    while not hasattr(model, "get_output_embeddings"):
        model = model.module
    return cast(nn.Module, model.get_output_embeddings())
