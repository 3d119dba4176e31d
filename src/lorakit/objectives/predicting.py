"""Examples through a model, batch by batch, for predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lorakit.data.batching import micro_batches
from lorakit.types import Batch, Example, Objective

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def scored(
    objective: Objective, model: nn.Module, examples: Sequence[Example], tokens: int
) -> Iterator[tuple[list[Example], Batch, dict[str, Tensor]]]:
    """Yield the examples of a batch, the batch, and the raw scores that a model gives it, on the CPU.

    Args:
        objective: Says how examples are laid side by side and which scores count.
        model: In eval mode, on any device.
        examples: In any order; the longest come first.
        tokens: Tokens computed at once, padding included.
    """
    from torch import inference_mode

    device = next(model.parameters()).device
    for group in micro_batches(examples, tokens, packed=False):
        batch = objective.collate(group, packed=False)
        moved = replace(batch, inputs=_on(batch.inputs, device), targets=_on(batch.targets, device))
        with inference_mode():
            outputs = objective.outputs(model, moved)
        yield group, batch, {name: scores.cpu() for name, scores in outputs.items()}


def _on(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in tensors.items()}
