"""Train every weight."""

from __future__ import annotations

from torch import nn

from lorakit.families import Family
from lorakit.methods.settings import FullSettings
from lorakit.methods.trainable import summarise
from lorakit.types import Trainable


def apply(model: nn.Module, settings: FullSettings, family: Family) -> tuple[nn.Module, Trainable]:
    """Leave `model` as it is, every weight learning."""
    return model.requires_grad_(True), summarise(model)
