"""The loop: window after window of micro-batches, evaluation, saved states, and a clean way out.

It knows neither objectives nor methods: it trains whatever has `requires_grad`.
"""

from __future__ import annotations

import math
import shlex
import signal
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from lorakit.checkpoints import shards
from lorakit.errors import DataError, Interrupted, TrainingError
from lorakit.training import state as states
from lorakit.training.checks import reached
from lorakit.training.evaluation import evaluate
from lorakit.training.events import EvaluationEvent, NoteEvent, StepEvent
from lorakit.training.optim import learning_rate_at
from lorakit.training.pace import Pace
from lorakit.training.room import with_room
from lorakit.training.run import Run
from lorakit.training.signals import Asked
from lorakit.training.state import State
from lorakit.training.trial import try_longest
from lorakit.types import Batch, Example


def fit(run: Run, state: State) -> State:
    """Train until the plan ends or patience does; the best state lies in the run folder afterwards.

    Args:
        run: The parts of the run; `run.model` is left with the weights of the best evaluation.
        state: Fresh, or loaded from a saved state; changed in place.

    Returns:
        `state`.

    Raises:
        Interrupted: A signal came; the state before the unfinished step is saved.
        DataError: A row that is read while training cannot be used; the state before it is saved.
        TrainingError: The loss, the gradient or every evaluation after training is not finite.
    """
    with run.signals.remembered():
        # Random numbers are put back to the start of an unfinished step, which a resumed run takes again whole.
        before = [states.random_state()]
        try:
            _train(run, state, before)
            _leave_if_asked(run)
        except Asked as asked:
            states.set_random_state(before[0])
            _save(run, state)
            raise Interrupted(
                asked.number,
                f"stopped by {asked} after step {state.step:,} of {run.plan.total():,}; everything is saved. "
                f"Go on with: lorakit train --resume -o {shlex.quote(str(run.output))}",
            ) from None
        except DataError:
            # A row met while streaming; what was learned before it stays.
            states.set_random_state(before[0])
            _save(run, state)
            raise
    _refuse_diverged(run, state)
    if state.best_step != state.step:
        states.restore_weights(states.folder_of(run.folder, state.best_step), run.bare_model)
    return state


def _train(run: Run, state: State, before: list[Tensor]) -> None:
    if state.step < run.plan.total():
        try_longest(run)
    pace = Pace()
    # Due are the untrained model, and after a resume the evaluation that a signal cut short.
    if _is_due(run, state):
        _judge(run, state)
        state.seconds += pace.lap()
        _save(run, state)
    run.model.train()
    for epoch, examples in run.plan.steps(skip=state.step):
        if run.train.patience is not None and state.stale >= run.train.patience:
            _save(run, state)
            run.reporters.report(
                NoteEvent(f"stopped early at step {state.step:,}: {state.stale} evaluations without a better loss")
            )
            return
        before[0] = states.random_state()
        try:
            _step(run, state, epoch, examples, pace)
        except TrainingError as error:
            states.set_random_state(before[0])
            raise TrainingError(f"{error} {_saved_before(run, state)}") from error
        before[0] = states.random_state()
        improved = _is_due(run, state) and _judge(run, state)
        state.seconds += pace.lap()
        if improved or state.step % _save_every(run) == 0 or state.step == run.plan.total():
            _save(run, state)


def _step(run: Run, state: State, epoch: int, examples: Sequence[Example], pace: Pace) -> None:
    """Take one optimizer step at its learning rate and tell of it."""
    total = run.plan.total()
    rate = learning_rate_at(state.step, total, run.optim, run.learning_rate)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    loss, norm = with_room(run, examples, lambda: train_window(run, examples, state.step + 1, epoch))
    tokens = sum(len(example) for example in examples)
    state.step += 1
    state.tokens += tokens
    state.loss_since += loss
    state.steps_since += 1
    pace.tokens, pace.steps = pace.tokens + tokens, pace.steps + 1
    left = pace.seconds_left(total - state.step)
    run.reporters.report(StepEvent(state.step, total, epoch + 1, loss, norm, rate, pace.per_second(), left))


def train_window(run: Run, examples: Sequence[Example], step: int, epoch: int = 0) -> tuple[float, float]:
    """Take one optimizer step over the micro-batches of `examples`, all processes together.

    The gradient is that of each term's mean over its N labelled positions in the whole window and on all R processes:
    every micro-batch back-propagates `loss_sum * R / N`, since several processes average their gradients. So neither
    the cut into micro-batches nor the number of processes changes the step.

    Args:
        run: The parts of the run; `run.model` in train mode.
        examples: All rows of the step; this process computes its share.
        step: Number of the step, from 1, for messages.
        epoch: Pass over the rows, from 0, whose random masks are drawn.

    Returns:
        Mean loss per label in nats, and the gradient norm before clipping.

    Raises:
        TrainingError: No row holds a label, or the loss or the gradient is not finite; the weights are unchanged.
    """
    batches, updates = run.batches(examples, epoch), run.updates
    world = run.accelerator.num_processes
    counts = _window_counts(run, batches)
    losses = []
    try:
        for number, (batch, weight) in enumerate(batches, 1):
            if world == 1:
                run.signals.check()
            # Parts are added up after each micro-batch: kept whole until the last, gradients would be as large as all
            # weights that learn.
            last = number == len(batches)
            with nullcontext() if last or run.sharded else run.accelerator.no_sync(run.model):
                with run.computing(), run.reading(batch):
                    sums = run.objective.loss_sums(run.model, run.placed(batch))
                    terms = [sums[term] * (weight * world / counts[term]) for term in sums if counts.get(term)]
                    loss = torch.stack(terms).sum()
                updates.add(loss, last)
            losses.append(loss.detach() / world)
        values = torch.stack(losses).float()
        # One look: a GPU stands still from here on.
        norm, own = torch.stack([updates.bounded().to(values), values.sum()]).tolist()
        (mean,) = run.total([own])
        if not (math.isfinite(mean) and math.isfinite(norm)):
            computed = [batch for batch, _ in batches]
            raise TrainingError(f"{_not_finite(step, mean, norm, computed, values, examples)}{_wider(run)}.")
        if step == 1:
            told = reached(run.bare_model, run.optimizer.param_groups, updates.reaches)
            run.reporters.report(NoteEvent(told, routine=True))
        updates.take()
    finally:
        updates.clear()
    return mean, norm


def _window_counts(run: Run, batches: Sequence[tuple[Batch, float]]) -> dict[str, float]:
    """Return each term's number of labels in the window over all processes; the place where a signal is shared."""
    local: dict[str, float] = defaultdict(float)
    for batch, weight in batches:
        for term, count in run.objective.counts(batch).items():
            local[term] += weight * count
    terms = sorted(local)
    *counts, asked = run.total([*(local[term] for term in terms), float(run.signals.number or 0)])
    if asked:
        raise Asked(run.signals.number or signal.SIGTERM)
    if not any(counts):
        raise TrainingError("nothing of this step is learned; look at the rows with --dry-run.")
    return dict(zip(terms, counts, strict=True))


def _leave_if_asked(run: Run) -> None:
    """Raise Asked on every process when a signal has come to one of them."""
    (asked,) = run.total([float(run.signals.number or 0)])
    if asked:
        raise Asked(run.signals.number or signal.SIGTERM)


def _is_due(run: Run, state: State) -> bool:
    """Whether the weights of this step are to be scored and have not been."""
    if state.step == 0:
        return state.first_loss is None
    if state.history and state.history[-1]["step"] == state.step:
        return False
    return state.step % _evaluate_every(run) == 0 or state.step == run.plan.total()


def _judge(run: Run, state: State) -> bool:
    """Evaluate, and return whether this is the best so far; a loss that is not finite never is."""
    scores = with_room(run, run.evaluation, lambda: evaluate(run, run.evaluation))
    loss = scores.loss
    terms = {f"{term}_loss": value for term, value in scores.losses.items()} if len(scores.losses) > 1 else {}
    details = {**terms, **scores.shares}
    improved = math.isfinite(loss) and (state.best_loss is None or loss < state.best_loss)
    if improved:
        state.best_loss, state.best_step, state.best_details, state.stale = loss, state.step, details, 0
    elif state.step:
        state.stale += 1
    if state.step == 0:
        state.first_loss = loss
    else:
        trained = state.loss_since / max(1, state.steps_since)
        state.history.append({"step": state.step, "train": trained, "evaluation": loss, **details})
        state.loss_since, state.steps_since = 0.0, 0
    best = loss if state.best_loss is None else state.best_loss
    run.reporters.report(EvaluationEvent(state.step, loss, state.best_step, best, details))
    return improved


def _evaluate_every(run: Run) -> int:
    return run.train.evaluate_every or max(1, math.ceil(run.plan.total() / 10))


def _save_every(run: Run) -> int:
    return run.train.save_every or _evaluate_every(run)


def _save(run: Run, state: State) -> None:
    gathered = [states.random_state()]
    if run.accelerator.num_processes > 1:
        device = run.accelerator.device
        stacked = run.accelerator.gather(gathered[0].to(device)[None])
        gathered = [part.cpu() for part in stacked]
    optimizer = getattr(run.optimizer, "optimizer", run.optimizer)
    first = run.accelerator.is_main_process
    if first or run.sharded:
        states.save(run.folder, state, run.bare_model, optimizer, gathered, writes=first)
    if run.frontier is not None:
        run.frontier.flush()
    run.accelerator.wait_for_everyone()


def _saved_before(run: Run, state: State) -> str:
    """Save what was learned before a step that failed, and return what is to be said about it."""
    weights = shards.trained(run.bare_model).values()
    (broken,) = run.total([sum(not bool(shards.held(weight).isfinite().all()) for weight in weights)])
    if not broken:
        _save(run, state)
        return f"The weights before this step are finite and saved in {states.folder_of(run.folder, state.step)}."
    kept = states.folder_of(run.folder, state.best_step)
    return f"The weights were no longer finite before it; those of step {state.best_step:,} are kept in {kept}."


def _refuse_diverged(run: Run, state: State) -> None:
    """Raise TrainingError when no trained weights gave a finite evaluation loss: there is nothing to hand over."""
    last = state.history[-1]["evaluation"] if state.history else math.nan
    if state.best_step == 0 and not math.isfinite(last):
        raise TrainingError(
            f"the evaluation loss after step {state.step:,} is {last}, and no trained weights were better than the "
            f"untrained ones, so nothing is written. Lower optim.learning_rate"
            f"{_wider(run)}, or look at the rows with --dry-run."
        )


def _not_finite(
    step: int, loss: float, norm: float, batches: Sequence[Batch], values: Tensor, examples: Sequence[Example]
) -> str:
    names = {example.row: example.where for example in examples}
    broken = [batch for batch, value in zip(batches, values.tolist(), strict=True) if not math.isfinite(value)]
    rows = [names.get(row, str(row)) for batch in broken or batches for row in batch.rows]
    listed = ", ".join(rows[:5]) + (f" and {len(rows) - 5:,} more" if len(rows) > 5 else "")
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm}"
    return f"step {step:,}: {what} (rows: {listed}). Look at these rows, or lower optim.learning_rate"


def _wider(run: Run) -> str:
    """Return the advice to compute more exactly, where that is not done already."""
    return ", or use --dtype float32" if run.precision != "float32" else ""
