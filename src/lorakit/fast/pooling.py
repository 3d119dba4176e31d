"""Heads that score whole rows, on packed rows: they read one state of each segment in place of one of the whole row.

The plain twin is one padded row a text, where the model finds the state itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorakit.families import Family


@contextmanager
def pooled(model: nn.Module, family: Family, lengths: Sequence[int]) -> Iterator[Callable[[Any], Tensor]]:
    """Within this block the head of `model` scores each segment of a packed row.

    An encoder's head reads the first state of a text, and gets the first of each segment; a decoder's scores all
    states, and those of the last tokens are kept.

    Args:
        model: A transformers model with a head for sequence classification, also inside PEFT's or DDP's wrapper.
        family: Of the model; an encoder's names its `summit`.
        lengths: Of the B segments that count; further ones behind them are left out.

    Yields:
        What turns the model's output into scores of shape (B, O).
    """
    ends_B = torch.tensor(lengths).cumsum(0)
    inner = unwrapped(model)
    kept: list[Tensor] = []

    def first(_: nn.Module, __: Any, output: Any) -> Any:
        hidden_1TD = output if isinstance(output, Tensor) else output[0]
        starts_B = (ends_B - torch.tensor(lengths)).to(hidden_1TD.device)
        hidden_B1D = hidden_1TD[0].index_select(0, starts_B)[:, None]
        if isinstance(output, Tensor):
            return hidden_B1D
        if isinstance(output, tuple):
            return (hidden_B1D, *output[1:])
        output.last_hidden_state = hidden_B1D
        return output

    def last(_: nn.Module, __: Any, scores_1TO: Tensor) -> None:
        kept.append(scores_1TO[0].index_select(0, (ends_B - 1).to(scores_1TO.device)))

    if family.kind == "encoder":
        handle = inner.base_model.get_submodule(family.summit).register_forward_hook(first)
    else:
        handle = inner.score.register_forward_hook(last)
    try:
        yield lambda output: kept.pop() if kept else cast(Tensor, output.logits)
    finally:
        handle.remove()


def unwrapped(model: nn.Module) -> Any:
    """Return the transformers model inside the wrappers of PEFT and of several processes."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))
