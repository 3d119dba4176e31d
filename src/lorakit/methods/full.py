"""Train every weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorakit.families import Family
from lorakit.methods.settings import FullSettings
from lorakit.methods.trainable import NEXT_TOKEN, summarise
from lorakit.types import Head, Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply(
    model: PreTrainedModel,
    settings: FullSettings,
    family: Family,
    head: Head = NEXT_TOKEN,
    fresh: tuple[str, ...] = (),
    new_rows: Sequence[int] = (),
) -> tuple[PreTrainedModel, Trainable]:
    """Leave `model` as it is, every weight learning; constants (Marian's positions) stay what they are."""
    return model, summarise(model)
