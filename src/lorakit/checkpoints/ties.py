"""The output layer and the embeddings: one tensor in many models, until only one of them is changed."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output layer and the embeddings are one tensor; a classifier has no such output layer."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def copies(model: PreTrainedModel) -> dict[str, str]:
    """Return the further names of every tensor that has several -> the first one, under which it is stored."""
    first: dict[int, str] = {}
    further = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(weight), name)
        if known != name:
            further[name] = known
    return further


def head_name(model: PreTrainedModel) -> str:
    """Return the name of the output layer's weight."""
    return _name(model, model.get_output_embeddings())


def embeddings_name(model: PreTrainedModel) -> str:
    """Return the name of the embeddings' weight."""
    return _name(model, model.get_input_embeddings())


def _name(model: PreTrainedModel, layer: nn.Module) -> str:
    return next(f"{name}.weight" for name, module in model.named_modules() if module is layer)


def must_untie(model: PreTrainedModel, changed: Collection[str]) -> bool:
    """Whether changing these weights gives a tied output layer a weight of its own."""
    return is_tied(model) and head_name(model) in changed


def untie(model: PreTrainedModel) -> None:
    """Give the output layer a copy of the embeddings, and say so in the model's config."""
    from torch import nn

    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False
