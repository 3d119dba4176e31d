"""What a model says of encoded rows: scores, those of similar length side by side, and their loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lorakit.data.batching import micro_batches
from lorakit.types import Batch, Example, Objective, Row

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lorakit.adapters.bundle import Target

_SCORES = 2**27
"""Scores over a vocabulary held at once: half a gigabyte in float32."""


def mean_loss(target: Target, objective: Objective, model: nn.Module, rows: Sequence[Row]) -> float:
    """Return the loss that a training on rows would report: the sum of the mean of each term, in nats."""
    scores = scored(model, objective, objective.encode(rows), tokens_at_once(target))
    return mean_of(objective, ((batch, outputs) for _, batch, outputs in scores))


def scored(
    model: nn.Module, objective: Objective, examples: Sequence[Example], budget: int
) -> Iterator[tuple[list[Example], Batch, dict[str, Tensor]]]:
    """Yield examples, the batch they became, and the scores that their loss reads.

    Args:
        model: In eval mode, on any device.
        objective: Encoded the examples.
        examples: In any order.
        budget: Tokens computed at once.
    """
    import torch

    device = next(model.parameters()).device
    for group in micro_batches(examples, budget, packed=False):
        batch = placed(objective.collate(group, packed=False), device)
        with torch.inference_mode():
            outputs = objective.outputs(model, batch)
        yield group, batch, outputs


def mean_of(objective: Objective, scores: Iterable[tuple[Batch, Mapping[str, Tensor]]]) -> float:
    """Return the sum of the mean loss of each term over batches and their scores, in nats."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, float] = defaultdict(float)
    for batch, outputs in scores:
        for term, loss in objective.losses(outputs, batch).items():
            sums[term] += float(loss)
        for term, count in objective.counts(batch).items():
            counts[term] += count
    return sum(sums[term] / counts[term] for term in sums if counts[term])


def placed(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device."""
    inputs, targets = (
        {name: tensor.to(device) for name, tensor in part.items()} for part in (batch.inputs, batch.targets)
    )
    return replace(batch, inputs=inputs, targets=targets)


def tokens_at_once(target: Target) -> int:
    """Return how many tokens are computed at once."""
    vocabulary = int(target.base.config.get("vocab_size") or 50_000)
    return min(8192, max(256, _SCORES // vocabulary))
