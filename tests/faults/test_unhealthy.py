"""Runs that go wrong: they stop, say at which step and rows, keep what was sound, and never speak of success."""

import errno
import math
import os

import pytest
import torch

from conftest import tiny_gpt2
from lorakit.errors import CheckpointError, LorakitError, TrainingError
from lorakit.training import loop
from lorakit.training.evaluation import Scores
from lorakit.training.events import EvaluationEvent, NoteEvent, StepEvent
from lorakit.training.settings import AdamWSettings, SgdSettings
from lorakit.training.state import State, folder_of
from runs import Listener, a_run, metrics, random_examples, train, weights


def poison(step):
    """Put a NaN into the weights right before a step is taken."""
    train_window = loop.train_window

    def poisoned(run_, examples, number, epoch):
        if number == step:
            with torch.no_grad():
                next(iter(run_.model.parameters())).view(-1)[0] = math.nan
        return train_window(run_, examples, number, epoch)

    return poisoned


def test_a_loss_that_is_not_finite_names_step_and_rows_and_keeps_the_state_before(tmp_path, monkeypatch):
    """The row itself breaks the loss: the weights are sound."""
    examples = random_examples([9, 14, 20, 11])
    run = a_run(tmp_path, tiny_gpt2(), examples, rows_per_step=2, epochs=2, budget=1)
    loss_sums = type(run.objective).loss_sums

    def broken(learner, model, batch):
        sums = loss_sums(learner, model, batch)
        return {term: loss * math.nan for term, loss in sums.items()} if model.training and 2 in batch.rows else sums

    monkeypatch.setattr(type(run.objective), "loss_sums", broken)
    step = next(number for number, (_, rows) in enumerate(run.plan.steps(), 1) if any(row.row == 2 for row in rows))
    with pytest.raises(TrainingError) as caught:
        loop.fit(run, State())
    said = str(caught.value)
    assert said.startswith(f"step {step}: the loss is nan (rows: rows.jsonl line 3). ")
    assert f"The weights before this step are finite and saved in {folder_of(tmp_path, step - 1)}." in said
    saved = weights(folder_of(tmp_path, step - 1))
    assert all(bool(tensor.isfinite().all()) for tensor in saved.values())


def test_weights_that_ran_away_are_not_called_finite(tmp_path, monkeypatch):
    run = a_run(tmp_path, tiny_gpt2(), random_examples([9, 14, 20, 11]), rows_per_step=2, epochs=2, evaluate_every=1)
    monkeypatch.setattr(loop, "train_window", poison(3))
    with pytest.raises(TrainingError, match="step 3: the loss is nan") as caught:
        loop.fit(run, State())
    assert "The weights were no longer finite before it; those of step 2 are kept in" in str(caught.value)
    assert not folder_of(tmp_path, 3).exists()
    assert all(bool(tensor.isfinite().all()) for tensor in weights(folder_of(tmp_path, 2)).values())


@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_a_learning_rate_out_of_all_bounds_ends_in_an_error(tmp_path, gpt2_folder, pairs_file, rate):
    listener = Listener()
    with pytest.raises(TrainingError, match=r"not finite|the loss is|the gradient norm is|evaluation loss"):
        train(tmp_path / "run", gpt2_folder, pairs_file, optim__learning_rate=rate, reporters=[listener])
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert listener.closed


def test_a_single_step_that_ruins_everything_is_no_success(tmp_path):
    settings = SgdSettings(learning_rate=1e38, warmup=0.0, clip=math.inf)
    run = a_run(tmp_path, tiny_gpt2(), random_examples([9, 14]), optim=settings, epochs=1)
    with pytest.raises(TrainingError, match="no trained weights were better than the untrained ones"):
        loop.fit(run, State())


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([math.nan, 0.9, 0.5, 0.7], 2),
        ([3.0, math.nan, 0.9, 0.5], 3),
        ([3.0, 0.5, math.nan, math.inf], 1),
        ([3.0, 0.9, 0.5, 0.5], 2),
        ([0.4, 0.9, 0.5, 0.7], 0),
    ],
)
def test_the_best_finite_evaluation_is_kept_and_of_equal_ones_the_first(tmp_path, monkeypatch, losses, best):
    examples, seen = random_examples([9, 14, 20]), []
    run = a_run(tmp_path, tiny_gpt2(), examples, rows_per_step=1, epochs=1, evaluate_every=1)

    def injected(run_, _):
        seen.append({name: weight.detach().clone() for name, weight in run_.model.named_parameters()})
        return Scores({"tokens": losses[len(seen) - 1]}, {})

    monkeypatch.setattr(loop, "evaluate", injected)
    state = loop.fit(run, State())
    assert (state.best_step, state.best_loss) == (best, losses[best])
    assert all(torch.equal(weight, seen[best][name]) for name, weight in run.model.named_parameters())


def test_a_row_without_a_finite_loss_before_training_is_no_best(tmp_path, monkeypatch):
    """NaN is smaller than nothing, and nothing is smaller than NaN: the first must not stand for ever."""
    losses, listener = iter([math.nan, 2.0]), Listener()
    run = a_run(tmp_path, tiny_gpt2(), random_examples([9, 14]), reporters=[listener], epochs=1)
    monkeypatch.setattr(loop, "evaluate", lambda *_: Scores({"tokens": next(losses)}, {}))
    loop.fit(run, State())
    told = [event for event in listener.events if isinstance(event, EvaluationEvent)]
    assert [(event.best_step, event.best_loss) for event in told[1:]] == [(1, 2.0)]


def test_nothing_that_learns_is_an_error_before_the_first_step(tmp_path, gpt2_folder, pairs_file):
    with pytest.raises(TrainingError, match="no weight would learn: everything is frozen"):
        train(tmp_path / "run", gpt2_folder, pairs_file, method={"name": "freeze", "patterns": ["*"]})


def test_a_reporter_that_fails_is_left_out_with_a_line_and_the_run_goes_on(tmp_path, gpt2_folder, pairs_file):
    def fail(event):
        if isinstance(event, StepEvent) and event.step == 2:
            raise ConnectionError("no route to host")

    failing, listening = Listener(fail), Listener()
    result = train(tmp_path / "run", gpt2_folder, pairs_file, reporters=[failing, listening])
    notes = [event.text for event in listening.events if isinstance(event, NoteEvent) and not event.routine]
    assert notes == ["Listener failed and is left out from now on: no route to host"]
    assert len([event for event in failing.events if isinstance(event, StepEvent)]) == 2
    steps = [line for line in metrics(result.folder) if line["kind"] == "step"]
    assert len(steps) == result.state.step == len([e for e in listening.events if isinstance(e, StepEvent)])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_and_the_states_before_stay(tmp_path, monkeypatch, gpt2_folder, pairs_file, code):
    from lorakit.checkpoints import shards

    write_stream = shards.write_stream

    def full(file, infos, producer):
        if "step-00000002" in str(file):
            raise OSError(code, os.strerror(code))
        write_stream(file, infos, producer)

    monkeypatch.setattr(shards, "write_stream", full)
    with pytest.raises(CheckpointError, match=r"the disk is full: .*step-00000002 was not written"):
        train(tmp_path / "run", gpt2_folder, pairs_file, train__save_every=1)
    left = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["step-00000000", "step-00000001"]
    monkeypatch.undo()
    train(tmp_path / "run", resume=True)


def test_a_full_disk_is_said_by_the_system_itself(tmp_path):
    """Writing past RLIMIT_FSIZE fails as writing to a full disk does: in the middle of a file."""
    resource = pytest.importorskip("resource")
    import signal

    from lorakit.training.state import save

    model = tiny_gpt2()
    run = a_run(tmp_path, model, random_examples([5]), optim=AdamWSettings())
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[0][1]))
    try:
        with pytest.raises(CheckpointError, match=r"the disk is full: .*step-00000000 was not written"):
            save(tmp_path, State(), model, run.optimizer, [torch.get_rng_state()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_an_evaluation_without_a_label_is_an_error(tmp_path):
    (example,) = random_examples([6])
    example.labels[:] = -100
    run = a_run(tmp_path, tiny_gpt2(), random_examples([6]), evaluation=[example])
    with pytest.raises(LorakitError, match="nothing in the evaluation rows is learned"):
        loop.fit(run, State())
