"""Score rows that are not learned from: sums over counts, so that the cut into batches does not matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lorakit.errors import DataError
from lorakit.training.run import Run
from lorakit.types import Example


@dataclass(frozen=True, slots=True)
class Scores:
    """What an evaluation found, over all processes."""

    losses: dict[str, float]
    """Mean loss of each term over its predictions, in nats."""
    shares: dict[str, float]
    """Share of hits by name, in [0, 1]: ``accuracy``, ``mlm_accuracy``, …"""

    @property
    def loss(self) -> float:
        """Sum of the terms: what a step lowers."""
        return sum(self.losses.values())


def evaluate(run: Run, examples: Sequence[Example]) -> Scores:
    """Return the mean loss of each term over all its predictions on `examples`, and what the objective counts besides.

    The model is in eval mode meanwhile, and back in train mode afterwards if it was before.

    Raises:
        DataError: No position of the rows is labelled.
    """
    # Without DDP's wrapper, whose forward would wait for processes that have fewer batches.
    model = run.bare_model
    trained = model.training
    model.eval()
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, float] = defaultdict(float)
    hits: dict[str, float] = defaultdict(float)
    trials: dict[str, float] = defaultdict(float)
    try:
        with torch.no_grad(), run.computing():
            for batch, weight in run.batches(examples):
                if run.accelerator.num_processes == 1:
                    run.signals.check()
                for term, count in run.objective.counts(batch).items():
                    counts[term] += weight * count
                placed = run.placed(batch)
                with run.reading(batch):
                    outputs = run.objective.outputs(model, placed)
                for term, loss_sum in run.objective.losses(outputs, placed).items():
                    sums[term] += weight * loss_sum.item()
                for name, (hit, trial) in run.objective.tallies(outputs, placed).items():
                    hits[name] += weight * hit
                    trials[name] += weight * trial
    finally:
        model.train(trained)
    means = _means(run, sums, counts)
    if not means:
        raise DataError("nothing in the evaluation rows is learned, so there is nothing to score.")
    return Scores(means, _means(run, hits, trials))


def _means(run: Run, sums: dict[str, float], counts: dict[str, float]) -> dict[str, float]:
    """Return sum over count of each name, over all processes; names that nothing was counted for are left out."""
    names = sorted(counts)
    totals = run.total([value for name in names for value in (sums[name], counts[name])])
    pairs = zip(names, totals[::2], totals[1::2], strict=True)
    return {name: total / count for name, total, count in pairs if count}
