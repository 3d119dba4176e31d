"""trained.safetensors: the changed tensors alone, under the names they have in the model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.checkpoints import added, shards, ties, weights
from lorakit.errors import CheckpointError
from lorakit.types import Head

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from lorakit.checkpoints.finding import Checkpoint

WEIGHTS = "trained.safetensors"


def write(folder: Path, model: nn.Module) -> None:
    """Write every tensor that learns, in float32; of a weight with an added matrix, the sum that is multiplied."""
    shards.write(folder / WEIGHTS, added.learned(model), widened=True)


def read(folder: Path, skeleton: PreTrainedModel, trained: tuple[str, ...]) -> dict[str, Tensor]:
    """Read the changed tensors, each checked against the model they belong to.

    Args:
        folder: Holds trained.safetensors.
        skeleton: The base, with or without weights.
        trained: Names that the manifest lists; empty: not listed.

    Raises:
        CheckpointError: A tensor is missing, not expected, of another shape, or not finite.
    """
    file = folder / WEIGHTS
    found = dict(weights.tensors(file))
    odd = sorted(found.keys() ^ set(trained)) if trained else []
    if odd:
        raise CheckpointError(f"{file} was edited: it and manifest.json disagree on {odd[0]!r}.")
    named = skeleton.named_parameters(remove_duplicate=False)
    shapes = {added.base_name(name): weight.shape for name, weight in named}
    for name, tensor in found.items():
        if name not in shapes:
            raise CheckpointError(f"{file} does not fit its base: the base has no weight {name!r}.")
        if tensor.shape != shapes[name]:
            raise CheckpointError(
                f"{file} does not fit its base: {name!r} is {tuple(tensor.shape)}, the base has {tuple(shapes[name])}."
            )
        if not weights.is_finite(tensor):
            raise CheckpointError(f"{file} is damaged: {name!r} holds numbers that are not finite.")
    return found


def load(
    base: Checkpoint, folder: Path, trained: tuple[str, ...], head: Head, dtype: str, attention: str
) -> PreTrainedModel:
    """Return the base with its changed tensors put in place, each rounded once to the dtype of the model.

    Raises:
        CheckpointError: The tensors are damaged or do not fit the base.
    """
    import torch

    model, fresh = base.load_for(head, dtype, attention)
    found = read(folder, model, trained)
    check_new(folder / WEIGHTS, model, fresh, found)
    if ties.must_untie(model, found):
        ties.untie(model)
    weight = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, tensor in found.items():
            weight[name].copy_(tensor)
    return model


def check_new(file: Path, model: nn.Module, fresh: Collection[str], found: Collection[str]) -> None:
    """Raise CheckpointError where neither the base nor `file` brings a weight of the head, which was drawn at random.

    One that starts the same everywhere, such as a bias of zeros, may be left out of the file.
    """
    weight = dict(model.named_parameters())
    lost = sorted(name for name in set(fresh) - set(found) if weight[name].unique().numel() > 1)
    if lost:
        raise CheckpointError(f"{file} lacks {lost[0]!r}, which its base does not have either ({len(lost)} in all).")
