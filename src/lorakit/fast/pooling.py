"""Heads that score whole rows, on packed rows: they read one state of each segment in place of one of the whole row.

The plain twin is one padded row a text, where the model finds the state itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from lorakit.families import Family
from lorakit.fast.varlen import borders_of


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
    inner = unwrapped(model)
    kept: list[Tensor] = []

    def first(_: nn.Module, __: Any, output: Any) -> Any:
        hidden_1TD = output if isinstance(output, Tensor) else output[0]
        hidden_B1D = _firsts(hidden_1TD, lengths)
        if isinstance(output, Tensor):
            return hidden_B1D
        if isinstance(output, tuple):
            return (hidden_B1D, *output[1:])
        output.last_hidden_state = hidden_B1D
        return output

    def last(_: nn.Module, __: Any, scores_1TO: Tensor) -> None:
        lasts_B = borders_of(tuple(lengths), scores_1TO.device)[1:] - 1
        kept.append(scores_1TO[0].index_select(0, lasts_B))

    if family.kind == "encoder":
        handle = inner.base_model.get_submodule(family.summit).register_forward_hook(first)
    else:
        handle = inner.score.register_forward_hook(last)
    try:
        yield lambda output: kept.pop() if kept else cast(Tensor, output.logits)
    finally:
        handle.remove()


@contextmanager
def pooler_reads(model: nn.Module, lengths: Sequence[int]) -> Iterator[None]:
    """Within this block the pooler of a BERT reads the first state of each segment; no other state changes.

    So next sentences (Devlin et al. 2019, arXiv:1810.04805, section 3.1) are told of each pair in a packed row, beside
    its hidden words.

    Args:
        model: A transformers model with a `pooler`, also inside PEFT's or DDP's wrapper.
        lengths: Of the B segments that count; further ones behind them are left out. Empty for padded rows, of which
            it reads the first state anyway.
    """

    if not lengths:
        yield
        return

    def first(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        return (_firsts(arguments[0], lengths),)

    handle = unwrapped(model).base_model.pooler.register_forward_pre_hook(first)
    try:
        yield
    finally:
        handle.remove()


def _firsts(hidden_1TD: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the first state of each segment, shape (B, 1, D)."""
    return hidden_1TD[0].index_select(0, borders_of(tuple(lengths), hidden_1TD.device)[:-1])[:, None]


def unwrapped(model: nn.Module) -> Any:
    """Return the transformers model inside the wrappers of PEFT and of several processes."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))
