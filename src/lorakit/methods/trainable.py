"""What every method reports, and the two ways a method may go wrong: nothing trains, or a tie hides what does."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, cast

from torch import nn

from lorakit.errors import TrainingError
from lorakit.families import Family
from lorakit.types import Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def summarise(model: PreTrainedModel, notes: tuple[str, ...] = ()) -> Trainable:
    """Count what learns, by kind of layer, in the order of the model.

    Raises:
        TrainingError: No weight would learn.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trained:
        raise TrainingError("no weight would learn: everything is frozen. Freeze fewer blocks or patterns.")
    tensors: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for name, weight in trained.items():
        kind = _kind(name)
        tensors[kind] += 1
        weights[kind] += weight.numel()
    return Trainable(
        names=tuple(trained),
        trained=sum(weights.values()),
        total=sum(weight.numel() for weight in model.parameters()),
        summary=tuple((kind, tensors[kind], weights[kind]) for kind in tensors),
        notes=notes,
    )


def _kind(name: str) -> str:
    """Return the name without what numbers and wraps it: ``h.attn.c_attn`` for all blocks together."""
    name = re.sub(r"^base_model\.model\.", "", name)
    name = re.sub(r"\.(lora_[A-Za-z_]+|modules_to_save|default|base_layer)\b", "", name)
    name = re.sub(r"\.\d+\.", ".", name)
    return re.sub(r"\.(weight|bias)$", "", name)


def blocks(model: PreTrainedModel, family: Family) -> nn.ModuleList:
    """Return the list of the model's blocks.

    Raises:
        TrainingError: The type is outside the table and its blocks cannot be told.
    """
    if family.blocks:
        return cast(nn.ModuleList, model.get_submodule(family.blocks))
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise TrainingError(f"the blocks of a {family.model_type!r} model cannot be told; freeze by method.patterns.")
    return max(lists, key=len)


def silence_frozen(model: PreTrainedModel, family: Family) -> None:
    """Set dropout to 0 in every block of which nothing learns: a frozen part has nothing to be regularised."""
    for block in blocks(model, family):
        if not any(weight.requires_grad for weight in block.parameters()):
            _silence(block)


def _silence(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for attribute, value in vars(part).items():
            if "dropout" in attribute and isinstance(value, float):
                setattr(part, attribute, 0.0)
