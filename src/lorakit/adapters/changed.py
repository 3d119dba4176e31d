"""trained.safetensors: the changed tensors alone, under the names they have in the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.checkpoints import weights
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from lorakit.checkpoints.finding import Checkpoint

WEIGHTS = "trained.safetensors"


def write(folder: Path, model: nn.Module) -> None:
    """Write every tensor that learns, in float32."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    infos = {name: weights.TensorInfo("F32", tuple(weight.shape)) for name, weight in trained.items()}
    weights.write_stream(folder / WEIGHTS, infos, lambda name: trained[name].detach().float())


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
    shapes = {name: weight.shape for name, weight in skeleton.named_parameters(remove_duplicate=False)}
    for name, tensor in found.items():
        if name not in shapes:
            raise CheckpointError(f"{file} does not fit its base: the base has no weight {name!r}.")
        if tensor.shape != shapes[name]:
            raise CheckpointError(
                f"{file} does not fit its base: {name!r} is {tuple(tensor.shape)}, the base has {tuple(shapes[name])}."
            )
        if not tensor.isfinite().all():
            raise CheckpointError(f"{file} is damaged: {name!r} holds numbers that are not finite.")
    return found


def unties(skeleton: PreTrainedModel, names: set[str]) -> bool:
    """Whether these changed tensors give the output layer a weight of its own, where it was tied to the embeddings."""
    head, embeddings = skeleton.get_output_embeddings(), skeleton.get_input_embeddings()
    return head.weight is embeddings.weight and head_name(skeleton) in names


def head_name(skeleton: PreTrainedModel) -> str:
    """Return the name of the output layer's weight."""
    head = skeleton.get_output_embeddings()
    return next(f"{name}.weight" for name, module in skeleton.named_modules() if module is head)


def load(base: Checkpoint, folder: Path, trained: tuple[str, ...], dtype: str, attention: str) -> PreTrainedModel:
    """Return the base with its changed tensors put in place, each rounded once to the dtype of the model.

    Raises:
        CheckpointError: The tensors are damaged or do not fit the base.
    """
    import torch
    from torch import nn

    model = base.load(dtype, attention)
    found = read(folder, model, trained)
    if unties(model, set(found)):
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False
    weight = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, tensor in found.items():
            weight[name].copy_(tensor)
    return model
