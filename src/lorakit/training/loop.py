"""The loop: window after window of micro-batches, evaluation, saved states, and a clean way out.

It knows neither objectives nor methods: it trains whatever has `requires_grad`.
"""

from __future__ import annotations

import math
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorakit.errors import Interrupted, TrainingError
from lorakit.training import state as states
from lorakit.training.evaluation import evaluate
from lorakit.training.events import EvaluationEvent, NoteEvent, StepEvent
from lorakit.training.optim import learning_rate_at
from lorakit.training.run import Run
from lorakit.training.signals import Asked
from lorakit.training.state import State
from lorakit.types import Batch, Example


@dataclass
class _Pace:
    """What passed since the last evaluation, and the speed."""

    losses: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    tokens: int = 0
    steps: int = 0

    def per_second(self) -> float:
        return self.tokens / max(1e-9, time.perf_counter() - self.started)

    def seconds_left(self, steps: int) -> float:
        return (time.perf_counter() - self.started) / max(1, self.steps) * steps


def fit(run: Run, state: State) -> State:
    """Train until the plan ends or patience does; the best state lies in the run folder afterwards.

    Args:
        run: The parts of the run; `run.model` is left with the weights of the best evaluation.
        state: Fresh, or loaded from a saved state; changed in place.

    Returns:
        `state`.

    Raises:
        Interrupted: A signal came; the state before the unfinished step is saved.
        TrainingError: The loss or the gradient is not finite; the state before that step is saved.
    """
    with run.signals:
        # Random numbers are put back to the start of an unfinished step, which a resumed run takes again whole.
        before = [states.random_state()]
        try:
            _train(run, state, before)
        except Asked as asked:
            states.set_random_state(before[0])
            _save(run, state)
            raise Interrupted(
                asked.number,
                f"stopped by {asked} after step {state.step:,} of {run.plan.total():,}; everything is saved. "
                f"Go on with: lorakit train --resume -o {run.folder}",
            ) from None
    _restore_best(run, state)
    return state


def _train(run: Run, state: State, before: list[Tensor]) -> None:
    total = run.plan.total()
    every = run.train.evaluate_every or max(1, math.ceil(total / 10))
    save_every = run.train.save_every or every
    if state.first_loss is None:
        state.first_loss = state.best_loss = sum(evaluate(run, run.evaluation).values())
        run.reporters.report(EvaluationEvent(0, state.first_loss, 0, state.first_loss))
        _save(run, state)
    pace = _Pace()
    run.model.train()
    for epoch, examples in run.plan.steps(skip=state.step):
        before[0] = states.random_state()
        started = time.perf_counter()
        rate = learning_rate_at(state.step, total, run.optim, run.learning_rate)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        try:
            loss, norm = train_window(run, examples, state.step + 1)
        except TrainingError:
            states.set_random_state(before[0])
            _save(run, state)
            raise
        state.step += 1
        tokens = sum(len(example) for example in examples)
        state.tokens += tokens
        pace.tokens, pace.steps = pace.tokens + tokens, pace.steps + 1
        pace.losses.append(loss)
        state.seconds += time.perf_counter() - started
        left = pace.seconds_left(total - state.step)
        run.reporters.report(StepEvent(state.step, total, epoch + 1, loss, norm, rate, pace.per_second(), left))
        evaluated = state.step % every == 0 or state.step == total
        before[0] = states.random_state()
        improved = evaluated and _judge(run, state, pace)
        if improved or state.step % save_every == 0 or state.step == total:
            _save(run, state)
        if run.train.patience is not None and state.stale >= run.train.patience:
            run.reporters.report(
                NoteEvent(f"stopped early at step {state.step:,}: {state.stale} evaluations without a better loss")
            )
            return


def train_window(run: Run, examples: Sequence[Example], step: int) -> tuple[float, float]:
    """Take one optimizer step over the micro-batches of `examples`, all processes together.

    The gradient is that of each term's mean over its N labelled positions in the whole window and on all R processes:
    every micro-batch back-propagates `loss_sum * R / N`, since several processes average their gradients. So neither
    the cut into micro-batches nor the number of processes changes the step.

    Args:
        run: The parts of the run; `run.model` in train mode.
        examples: All rows of the step; this process computes its share.
        step: Number of the step, from 1, for messages.

    Returns:
        Mean loss per label in nats, and the gradient norm before clipping.

    Raises:
        TrainingError: No row holds a label, or the loss or the gradient is not finite; the weights are unchanged.
    """
    batches = run.batches(examples)
    world = run.accelerator.num_processes
    counts = _window_counts(run, batches)
    # A process without rows still takes part in the exchange of gradients, with one of the others' rows and weight 0.
    weight = float(world) if batches else 0.0
    batches = batches or [run.objective.collate(examples[:1], run.packed)]
    losses = []
    try:
        for batch in batches:
            if world == 1:
                run.signals.check()
            last = batch is batches[-1]
            with nullcontext() if last else run.accelerator.no_sync(run.model):
                with run.computing():
                    sums = run.objective.loss_sums(run.model, run.placed(batch))
                    terms = [sums[term] * (weight / counts[term]) for term in sums if counts.get(term)]
                    loss = torch.stack(terms).sum()
                run.accelerator.backward(loss)
            losses.append(loss.detach() / world)
        learned = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
        norm = float(torch.nn.utils.clip_grad_norm_(learned, run.optim.clip))
        values = torch.stack(losses).float()
        (mean,) = run.total([float(values.sum())])
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise TrainingError(_not_finite(step, mean, norm, batches, values, examples))
        run.optimizer.step()
    finally:
        run.optimizer.zero_grad(set_to_none=True)
    return mean, norm


def _window_counts(run: Run, batches: Sequence[Batch]) -> dict[str, float]:
    """Return each term's number of labels in the window over all processes; the place where a signal is shared."""
    local: dict[str, float] = defaultdict(float)
    for batch in batches:
        for term, count in run.objective.counts(batch).items():
            local[term] += count
    terms = sorted(local)
    *counts, asked = run.total([*(local[term] for term in terms), float(run.signals.number or 0)])
    if asked:
        raise Asked(run.signals.number or signal.SIGTERM)
    if not any(counts):
        raise TrainingError(
            "no token of this step is learned; raise data.max_length, or look at the rows with --dry-run."
        )
    return dict(zip(terms, counts, strict=True))


def _judge(run: Run, state: State, pace: _Pace) -> bool:
    """Evaluate, and return whether this is the best so far; a loss that is not finite never is."""
    loss = sum(evaluate(run, run.evaluation).values())
    improved = math.isfinite(loss) and (state.best_loss is None or loss < state.best_loss)
    if improved:
        state.best_loss, state.best_step, state.stale = loss, state.step, 0
    else:
        state.stale += 1
    trained = sum(pace.losses) / max(1, len(pace.losses))
    state.history.append({"step": state.step, "train": trained, "evaluation": loss})
    pace.losses.clear()
    run.reporters.report(EvaluationEvent(state.step, loss, state.best_step, state.best_loss or loss))
    return improved


def _save(run: Run, state: State) -> None:
    gathered = [states.random_state()]
    if run.accelerator.num_processes > 1:
        device = run.accelerator.device
        stacked = run.accelerator.gather(gathered[0].to(device)[None])
        gathered = [part.cpu() for part in stacked]
    if run.accelerator.is_main_process:
        optimizer = getattr(run.optimizer, "optimizer", run.optimizer)
        states.save(run.folder, state, run.bare_model, optimizer, gathered)
    run.accelerator.wait_for_everyone()


def _restore_best(run: Run, state: State) -> None:
    if state.best_step != state.step:
        states.restore_weights(run.folder / "checkpoints" / f"step-{state.best_step:08d}", run.bare_model)


def _not_finite(
    step: int, loss: float, norm: float, batches: Sequence[Batch], values: Tensor, examples: Sequence[Example]
) -> str:
    names = {example.row: example.where for example in examples}
    broken = [batch for batch, value in zip(batches, values.tolist(), strict=True) if not math.isfinite(value)]
    rows = [names.get(row, str(row)) for batch in broken or batches for row in batch.rows]
    listed = ", ".join(rows[:5]) + (f" and {len(rows) - 5:,} more" if len(rows) > 5 else "")
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm}"
    return (
        f"step {step:,}: {what} (rows: {listed}). The weights before this step are saved and finite. "
        f"Lower optim.learning_rate, look at these rows, or use --dtype float32."
    )
