"""Keep the lower part of the model as it is and train the rest."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lorakit.checkpoints.ties import is_tied
from lorakit.errors import TrainingError
from lorakit.families import Family
from lorakit.methods.settings import FreezeSettings
from lorakit.methods.trainable import blocks, summarise
from lorakit.types import Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply(model: PreTrainedModel, settings: FreezeSettings, family: Family) -> tuple[PreTrainedModel, Trainable]:
    """Freeze the embeddings and the first blocks, or what the patterns name; never unties the output layer.

    Raises:
        TrainingError: More blocks than there are, a pattern that matches nothing, or nothing left to learn.
    """
    model.requires_grad_(True)
    if settings.patterns is not None:
        _freeze_patterns(model, settings.patterns)
    else:
        _freeze_lower(model, settings.blocks, family)
    notes = []
    if is_tied(model) and not model.get_input_embeddings().weight.requires_grad:
        notes.append("the output layer is tied to the embeddings, so it is frozen with them")
    return model, summarise(model, tuple(notes))


def _freeze_lower(model: PreTrainedModel, count: int | None, family: Family) -> None:
    layers = blocks(model, family)
    count = len(layers) // 2 if count is None else count
    if count > len(layers):
        raise TrainingError(f"method.blocks is {count}; this model has {len(layers)} blocks, so 0 to {len(layers)}.")
    inside = {id(weight) for weight in layers.parameters()}
    first_block = min(index for index, weight in enumerate(model.parameters()) if id(weight) in inside)
    # What is registered before the first block feeds it: token and position embeddings and their norms.
    for weight in list(model.parameters())[:first_block]:
        weight.requires_grad_(False)
    for block in layers[:count]:
        block.requires_grad_(False)


def _freeze_patterns(model: PreTrainedModel, patterns: list[str]) -> None:
    names = [name for name, _ in model.named_parameters()]
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    if idle:
        raise TrainingError(
            f"method.patterns: {', '.join(map(repr, idle))} matches no weight. Names look like {names[0]!r} and "
            f"{names[-1]!r}; `*` stands for any part."
        )
    for name, weight in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            weight.requires_grad_(False)
