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
    """Return the further names of every tensor that has several -> the one under which it is stored.

    That is the first in the order of the model; a head never lends its name, though it may stand before the embeddings.
    """
    output = head_name(model) if model.get_output_embeddings() is not None else None
    names: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    further = {}
    for same in names.values():
        original = next((name for name in same if name != output), same[0])
        further.update({name: original for name in same if name != original})
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


def can_say_untied(model: PreTrainedModel) -> bool:
    """Whether config.json can say that output layer and embeddings are two.

    A T5 and its kin read that key in another way, or not at all: there it is told by what is stored.
    """
    return not type(model.config)(tie_word_embeddings=False).tie_word_embeddings


def untie(model: PreTrainedModel) -> None:
    """Give the output layer a copy of the embeddings, and say so in the model's config where it can be said."""
    from torch import nn

    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    if can_say_untied(model):
        model.config.tie_word_embeddings = False
