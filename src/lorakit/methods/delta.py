"""Train a matrix of full shape beside each frozen one: all that training changes, before LoRA makes it small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorakit.checkpoints import added, token_rows
from lorakit.families import Family
from lorakit.methods.settings import DeltaSettings
from lorakit.methods.targets import choose, learned_whole
from lorakit.methods.trainable import NEXT_TOKEN, learn_fresh, summarise
from lorakit.types import Head, Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply(
    model: PreTrainedModel,
    settings: DeltaSettings,
    family: Family,
    head: Head = NEXT_TOKEN,
    fresh: tuple[str, ...] = (),
    new_rows: Sequence[int] = (),
) -> tuple[PreTrainedModel, Trainable]:
    """Make W + D of the matrices that LoRA would reach (Hu et al. 2021, arXiv:2106.09685, section 4.1), D learning.

    What LoRA writes as B A is here D itself, of the shape of W and of any rank, zero at first; weight decay draws it to
    zero, so that the model is drawn to its base. Heads and new tokens learn as they do there.

    Raises:
        TrainingError: A target matches no linear layer, or there are not so many last blocks.
    """
    model.requires_grad_(False)
    whole, _ = learned_whole(model, family, fresh)
    for name in whole:
        model.get_submodule(name).requires_grad_(True)
    learn_fresh(model, fresh)
    for layer in choose(model, settings, family, whole).layers.values():
        added.add(layer)
    token_rows.learn(model, new_rows)
    notes = (f"{len(new_rows):,} rows of the embeddings learn, and all rows are stored",) if new_rows else ()
    return model, summarise(model, notes)
