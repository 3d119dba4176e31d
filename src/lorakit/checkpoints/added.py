"""Weights that are a sum of a frozen one and a matrix that learns, W + D, by torch's own parametrizations.

To the rest of the house such a weight is one weight under the base's name: what is stored is the sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorakit.checkpoints import shards

if TYPE_CHECKING:
    from torch import Tensor, nn

_PLACE = re.compile(r"\.parametrizations\.(\w+)\.(original|0\.change)$")
"""What torch puts into the names of both parts."""


def add(layer: nn.Module) -> nn.Parameter:
    """Freeze the weight of `layer`, and return a matrix that is added to it and learns: in float32, zero at first.

    One sum is multiplied, not two matrices: its slope is that of D, and the products are as many as without D.
    """
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    class Sum(nn.Module):
        """W + D."""

        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.change = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))

        def forward(self, weight: Tensor) -> Tensor:
            return weight + self.change

    weight: Any = layer.weight
    parametrize.register_parametrization(layer, "weight", addition := Sum(weight.requires_grad_(False)))
    return addition.change


def base_name(name: str) -> str:
    """Return the base's name of a weight, given that of one part of a sum; any other name stays."""
    return _PLACE.sub(r".\1", name)


def is_sum(name: str) -> bool:
    """Whether a parameter of this name is a part of a sum."""
    return _PLACE.search(name) is not None


def learned(model: nn.Module) -> dict[str, Tensor]:
    """Return what learning makes of the base, by the base's names: sums as they are multiplied, other weights."""
    return {base_name(name): _weight(model, base_name(name)) for name in shards.trained(model)}


def places(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return, by the base's names, what stored weights are read into; of a sum D, and W, which is lost, becomes zero.

    Whatever is read is then multiplied as it is: W + ((W + D) - W) may differ from W + D in its last bit.
    """
    learned = shards.trained(model)
    for name, weight in model.named_parameters():
        if is_sum(name) and name not in learned:
            weight.data.zero_()
    return {base_name(name): weight for name, weight in learned.items()}


def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights, such as `learned` returned, in place of those of `model`; of a sum W stays what it is."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            owner, _, own = name.rpartition(".")
            change = parameters.get(f"{owner}.parametrizations.{own}.0.change")
            if change is None:
                parameters[name].copy_(weight)
            else:
                change.copy_(weight - parameters[f"{owner}.parametrizations.{own}.original"])


def _weight(model: nn.Module, name: str) -> Tensor:
    owner, _, own = name.rpartition(".")
    found: Tensor = getattr(model.get_submodule(owner), own)
    return found
