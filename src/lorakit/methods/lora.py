"""Train a low-rank pair of d x r and r x k beside each frozen matrix; PEFT owns names, weights and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from lorakit.errors import TrainingError, nearest
from lorakit.families import Family
from lorakit.methods.settings import LoraSettings
from lorakit.methods.trainable import summarise
from lorakit.types import Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply(model: PreTrainedModel, settings: LoraSettings, family: Family) -> tuple[PreTrainedModel, Trainable]:
    """Wrap `model` so that W becomes W + alpha / rank * B A (Hu et al. 2021, arXiv:2106.09685, equation 3).

    Returns:
        PEFT's wrapper around the same model, only the pairs learning, in float32.

    Raises:
        TrainingError: A target matches no linear layer, or the rank exceeds a layer's smaller side.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    layers = linear_layers(model)
    targets = _targets(settings, family, layers)
    matched = {name: layer for name, layer in layers.items() if _ends(name, targets)}
    for name, layer in matched.items():
        smaller = min(layer.weight.shape)
        if settings.rank > smaller:
            raise TrainingError(
                f"method.rank is {settings.rank}, but {name} is {' x '.join(map(str, layer.weight.shape))}: a pair of "
                f"rank above {smaller} would be larger than the matrix. Choose a rank of at most {smaller}."
            )
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(targets),
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        # GPT-2's Conv1D keeps its matrix as (in, out).
        fan_in_fan_out=any(not isinstance(layer, nn.Linear) for layer in matched.values()),
    )
    adapted = get_peft_model(model, config)
    return adapted, summarise(adapted)


def linear_layers(model: PreTrainedModel) -> dict[str, Any]:
    """Return every matrix product of the blocks by name: Linear and GPT-2's Conv1D, the output layer left out."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _targets(settings: LoraSettings, family: Family, layers: dict[str, Any]) -> set[str]:
    ends = {name.rsplit(".", 1)[-1] for name in layers}
    if settings.targets == "all-linear" or (settings.targets is None and not family.targets):
        return ends
    targets = set(settings.targets or family.targets)
    for target in sorted(targets):
        if not any(_ends(name, {target}) for name in layers):
            raise TrainingError(
                f"method.targets: {target!r} matches no linear layer of this {family.model_type} model. "
                f"Its layers end in {', '.join(sorted(ends))}. {nearest(target, ends)}".rstrip()
            )
    return targets


def _ends(name: str, targets: set[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)
