"""Train the head alone: a linear probe on what the frozen model already knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from lorakit.checkpoints.ties import is_tied, untie
from lorakit.families import Family
from lorakit.methods.settings import HeadSettings
from lorakit.methods.trainable import NEXT_TOKEN, head_modules, learn_fresh, refuse_new_rows, summarise
from lorakit.types import Head, Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NEXT_SENTENCE = ("seq_relationship", "sop_classifier")
"""What transformers calls the classifier of sentence pairs beside a masked language model."""


def apply(
    model: PreTrainedModel,
    settings: HeadSettings,
    family: Family,
    head: Head = NEXT_TOKEN,
    fresh: tuple[str, ...] = (),
    new_rows: Sequence[int] = (),
) -> tuple[PreTrainedModel, Trainable]:
    """Freeze all but the head.

    The head of a language model is its output layer, and the classifier of next sentences where there is one; tied to
    the embeddings, it is copied first, so that it alone moves. Of other tasks it is all that stands on the backbone.

    Raises:
        TrainingError: There are new tokens.
    """
    refuse_new_rows(settings.name, new_rows)
    model.requires_grad_(False)
    notes: tuple[str, ...] = ()
    output: nn.Module | None = model.get_output_embeddings()
    if output is None:
        parts = list(head_modules(model, family).values())
    else:
        if is_tied(model):
            untie(model)
            size = model.get_output_embeddings().weight.numel()
            notes = (
                f"the output layer was tied to the embeddings and is now a copy of its own: {size:,} weights more, "
                f"and the merged model stores both",
            )
        pairs = [part for name, part in model.named_modules() if name.endswith(_NEXT_SENTENCE)]
        parts = [output, *(pairs if head.task == "masked_lm_nsp" else [])]
    for part in parts:
        part.requires_grad_(True)
    learn_fresh(model, fresh)
    return model, summarise(model, notes)
