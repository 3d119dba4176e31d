"""Train the output layer alone: a linear probe on what the frozen model already knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorakit.checkpoints.ties import is_tied, untie
from lorakit.families import Family
from lorakit.methods.settings import HeadSettings
from lorakit.methods.trainable import summarise
from lorakit.types import Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply(model: PreTrainedModel, settings: HeadSettings, family: Family) -> tuple[PreTrainedModel, Trainable]:
    """Freeze all but the output layer; one that is tied to the embeddings is copied first, so that it alone moves."""
    model.requires_grad_(False)
    head = model.get_output_embeddings()
    notes: tuple[str, ...] = ()
    if is_tied(model):
        untie(model)
        size = head.weight.numel()
        notes = (
            f"the output layer was tied to the embeddings and is now a copy of its own: {size:,} weights more, "
            f"and the merged model stores both",
        )
    head.requires_grad_(True)
    return model, summarise(model, notes)
