"""The longest micro-batch tried before the first step: if memory runs out, it does so in the first seconds.

Nothing of it stays: gradients go nowhere, random numbers are put back, and stored states of frozen blocks are not
touched, so that a run ends with the same weights bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from lorakit.data.batching import FixedPlan, micro_batches
from lorakit.training import memory
from lorakit.training import state as states
from lorakit.training.events import NoteEvent
from lorakit.training.room import with_room
from lorakit.training.run import Run
from lorakit.types import Example

_MARGIN = 4
"""How many times the estimate has to fit into free memory for a processor to go without the trial."""


def try_longest(run: Run) -> None:
    """Take one forward and backward pass over the longest rows, and fit `run.budget` to what it took.

    On a GPU the whole longest micro-batch is tried, and the budget grows or shrinks. On a processor, where the system
    may kill a process without a word, a single row is, only where memory is short, and the budget can but shrink. A
    stream's longest row is not known beforehand; the evaluation rows stand for it.

    Args:
        run: Not yet in its first step; `budget` is changed.

    Raises:
        TrainingError: A single row does not fit.
    """
    device = run.accelerator.device
    ample = device.type != "cuda" and _MARGIN * run.budget * run.per_token <= memory.free_bytes(device)
    # Where something lies in parts, no process can compute by itself.
    if ample or run.sharded:
        return
    known = run.plan.examples if isinstance(run.plan, FixedPlan) else run.evaluation
    rows = sorted(known, key=len, reverse=True)
    random, trained = states.random_state(), run.bare_model.training
    run.bare_model.train()
    try:
        with_room(run, rows[:1], lambda: _pass(run, rows if device.type == "cuda" else rows[:1]))
    finally:
        run.bare_model.train(trained)
        states.set_random_state(random)


def _pass(run: Run, rows: Sequence[Example]) -> None:
    """Compute the gradient of one micro-batch, longest rows first, throw it away, and tell what it took."""
    device, model = run.accelerator.device, run.bare_model
    free = memory.free_bytes(device) - (0 if run.optimizer.state else memory.gradients_and_moments(model))
    part = micro_batches(rows, run.budget, run.packed)[0]
    batch = run.placed(run.objective.collate(part, run.packed, 0))
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    held, started = memory.mark(device), time.perf_counter()
    with run.computing():
        loss = torch.stack(list(run.objective.loss_sums(model, batch).values())).sum()
    # Not `backward`, which would leave gradients behind, and wake what exchanges them between processes.
    torch.autograd.grad(loss, learned, allow_unused=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    taken = max(0, memory.peak(device) - held)
    seconds = time.perf_counter() - started
    if run.train.micro_batch_tokens is None:
        run.budget = _fitting(run, free, taken // batch.tokens, len(rows[0]))
    what = "row" if len(part) == 1 else f"{len(part):,} rows"
    run.reporters.report(
        NoteEvent(
            f"tried the longest {what}, {batch.tokens:,} tokens: {taken / 1e9:.2f} of {max(0, free) / 1e9:.1f} GB and "
            f"{seconds:.1f} s; {run.budget:,} tokens are computed at once",
            routine=True,
        )
    )


def _fitting(run: Run, free: int, each: int, longest: int) -> int:
    """Return the budget for `each` measured bytes a token."""
    device = run.accelerator.device
    step = run.plan.tokens_per_step or (run.plan.rows_per_step or 1) * longest
    found = memory.budget(free, each, longest, -(-step // run.accelerator.num_processes), device)
    return found if device.type == "cuda" else min(run.budget, found)
