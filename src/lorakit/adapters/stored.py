"""What the weight file of a bundle holds: which tensors of a model, under which names, in which file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from lorakit.adapters import changed, lora_file, whole
from lorakit.checkpoints import added, shards, weights

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

Form = Literal["lora", "changed", "full"]

_FILES = {"lora": lora_file.WEIGHTS, "changed": changed.WEIGHTS, "full": weights.SINGLE}


def weights_of(model: nn.Module, form: Form) -> dict[str, Tensor]:
    """Return what is stored of `model`, by the names it has in the file; the model's own memory, but for sums."""
    if form == "lora":
        return lora_file.weights_of(cast("PeftModel", model))
    return added.learned(model) if form == "changed" else whole.weights_of(model)


def hand_over(model: nn.Module, form: Form) -> None:
    """Take part in writing the weights of `model`, of which this process holds a part, on another process."""
    shards.write(None, weights_of(model, form))


def read_back(folder: Path, model: nn.Module, form: Form) -> None:
    """Put the stored weights in place of those in memory, which are wiped first: what the file lacks is seen then.

    Args:
        folder: Holds the weight file; every process reads it.
        model: As it was written, also in parts.
        form: Of the bundle.
    """
    import torch

    places = added.places(model) if form == "changed" else weights_of(model, form)
    for place in places.values():
        if place.is_floating_point():
            shards.put(place, torch.full(shards.shape(place), torch.nan))
    for name, tensor in weights.tensors(folder / _FILES[form]):
        shards.put(places[name], tensor)
