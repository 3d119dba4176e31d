"""Score rows that are not learned from: sums over counts, so that the cut into batches does not matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from lorakit.errors import DataError
from lorakit.training.run import Run
from lorakit.types import Example


def evaluate(run: Run, examples: Sequence[Example]) -> dict[str, float]:
    """Return the mean loss of each term over all labelled positions of `examples`, in nats, over all processes.

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
    try:
        with torch.no_grad(), run.computing():
            batches, weight = run.batches(examples)
            for batch in batches:
                if run.accelerator.num_processes == 1:
                    run.signals.check()
                for term, count in run.objective.counts(batch).items():
                    counts[term] += weight * count
                for term, loss_sum in run.objective.loss_sums(model, run.placed(batch)).items():
                    sums[term] += weight * loss_sum.item()
    finally:
        model.train(trained)
    terms = sorted(counts)
    totals = run.total([value for term in terms for value in (sums[term], counts[term])])
    pairs = zip(terms, totals[::2], totals[1::2], strict=True)
    means = {term: loss_sum / count for term, loss_sum, count in pairs if count}
    if not means:
        raise DataError("no token of the evaluation rows is learned, so there is nothing to score.")
    return means
