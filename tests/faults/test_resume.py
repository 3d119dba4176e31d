"""A run that was stopped and goes on is the run that never stopped, bit for bit; and what cannot go on says why."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import PAIRS
from lorakit.errors import CheckpointError, Interrupted, LorakitError
from lorakit.training.evaluation import Scores
from lorakit.training.events import StepEvent
from lorakit.workflows import run_folders
from runs import Listener, metrics, recipe, train, weights

SETTINGS = {
    "train__dropout": 0.1,
    "train__epochs": 2,
    "train__rows_per_step": 5,
    "train__evaluate_every": 3,
    "train__save_every": 2,
    "train__micro_batch_tokens": 90,
    "optim__learning_rate": 3e-3,
}
METHODS = {
    "lora": {"method": {"name": "lora", "rank": 4, "dropout": 0.1}},
    "full": {"method": "full"},
    "delta": {"method": "delta"},
    "adafactor": {"method": "full", "optim": {"name": "adafactor", "learning_rate": 3e-3}},
}
TOTAL = 10


@pytest.fixture(autouse=True)
def hang_ups_end_a_process():
    """Whatever runs the tests (nohup) may have asked for the opposite, which a run respects."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def stop_at(step, number=signal.SIGTERM):
    """A reporter that sends a signal to this process when a step was taken."""

    def act(event):
        if isinstance(event, StepEvent) and event.step == step:
            os.kill(os.getpid(), number)

    return Listener(act)


def assert_same(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert metrics(one) == metrics(other)
    told = [json.loads((folder / "manifest.json").read_text())["metrics"] for folder in (one, other)]
    assert {**told[0], "seconds": 0} == {**told[1], "seconds": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, gpt2_folder):
    """Runs that were never stopped, by method, made when they are first asked for."""
    folder = tmp_path_factory.mktemp("whole")
    made = {}

    def _whole(method, data):
        if method not in made:
            made[method] = train(folder / method, gpt2_folder, data, **SETTINGS, **METHODS[method]).folder
        return made[method]

    return _whole


def test_the_run_has_several_micro_batches_a_step_and_shuffles(whole, pairs_file, gpt2_folder):
    from lorakit.workflows.preparing import prepare_rows

    loaded = recipe(gpt2_folder, pairs_file, **SETTINGS)
    plan = prepare_rows(loaded.recipe).plan
    assert plan.total() == TOTAL
    steps = [[example.row for example in step] for _, step in plan.steps()]
    assert steps[0] != sorted(steps[0])
    assert all(sum(map(len, step)) > 90 for _, step in plan.steps() if len(step) == 5)


STOPS = {
    "SIGTERM": ("lora", [(1, signal.SIGTERM)]),
    "SIGINT, then SIGHUP": ("lora", [(6, signal.SIGINT), (7, signal.SIGHUP)]),
    "at every step": ("lora", [(step, signal.SIGTERM) for step in range(1, TOTAL + 1)]),
    "full": ("full", [(3, signal.SIGTERM)]),
    "adafactor": ("adafactor", [(3, signal.SIGTERM)]),
}


@pytest.mark.parametrize("case", STOPS)
def test_stopped_by_a_signal_and_resumed_it_is_the_same_run(tmp_path, whole, gpt2_folder, pairs_file, case):
    method, stops = STOPS[case]
    output, begin = tmp_path / "run", (gpt2_folder, pairs_file)
    values = {**SETTINGS, **METHODS[method]}
    for step, number in stops:
        with pytest.raises(Interrupted) as caught:
            train(output, *begin, resume=not begin, reporters=[stop_at(step, number)], **values)
        begin = ()
        assert caught.value.exit_code == 128 + number
        assert str(caught.value) == (
            f"stopped by {signal.Signals(number).name} after step {step} of {TOTAL}; everything is saved. "
            f"Go on with: lorakit train --resume -o {output}"
        )
    train(output, resume=True)
    assert_same(output, whole(method, pairs_file))


def test_a_signal_during_an_evaluation_costs_nothing(tmp_path, whole, monkeypatch, gpt2_folder, pairs_file):
    """The first signal comes while the untrained model is scored, the second in the middle of step 6's evaluation."""
    from lorakit.training import loop

    expected, output, evaluate = whole("lora", pairs_file), tmp_path / "run", loop.evaluate
    seen = []

    def interrupted(run, examples):
        seen.append(1)
        if len(seen) in (1, 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(run, examples)

    monkeypatch.setattr(loop, "evaluate", interrupted)
    values = {**SETTINGS, **METHODS["lora"]}
    with pytest.raises(Interrupted, match="after step 0 of 10"):
        train(output, gpt2_folder, pairs_file, **values)
    with pytest.raises(Interrupted, match="after step 6 of 10"):
        train(output, resume=True)
    train(output, resume=True)
    assert_same(output, expected)


def test_a_signal_in_the_middle_of_a_step_costs_nothing(tmp_path, whole, monkeypatch, gpt2_folder, pairs_file):
    """It comes when dropout has been drawn for the first micro-batch, which the resumed run draws again."""
    from lorakit.objectives.causal_lm import CausalLM

    loss_sums, batches = CausalLM.loss_sums, []

    def interrupted(learner, model, batch):
        batches.append(batch)
        if model.training and len(batches) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss_sums(learner, model, batch)

    monkeypatch.setattr(CausalLM, "loss_sums", interrupted)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", gpt2_folder, pairs_file, **SETTINGS, **METHODS["full"])
    assert len(batches) == 8
    train(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole("full", pairs_file))


def test_a_signal_while_the_result_is_written_costs_nothing(tmp_path, whole, monkeypatch, gpt2_folder, pairs_file):
    from lorakit.workflows import finishing

    expected, output, moved = whole("lora", pairs_file), tmp_path / "run", finishing._move

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        moved(*arguments)

    monkeypatch.setattr(finishing, "_move", interrupted)
    with pytest.raises(Interrupted, match=r"all steps are saved, the result is not written yet. Go on with"):
        train(output, gpt2_folder, pairs_file, **SETTINGS, **METHODS["lora"])
    assert not (output / "manifest.json").exists()
    monkeypatch.undo()
    train(output, resume=True)
    assert_same(output, expected)


def test_a_signal_before_the_first_step_leaves_nothing(tmp_path, gpt2_folder, pairs_file):
    from lorakit.workflows.training import train as run

    def leave(_):
        os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(Interrupted, match="stopped by SIGHUP; nothing was written") as caught:
        run(recipe(gpt2_folder, pairs_file), tmp_path / "run", on_prepared=leave)
    assert caught.value.exit_code == 129
    assert not (tmp_path / "run").exists()


KILLED = """
import json, os, signal, sys
import torch
from lorakit.recipe import LoadedRecipe, check
from lorakit.training.events import StepEvent
from lorakit.workflows.training import train

torch.set_num_threads(1)  # as in conftest: sums depend on it in the last bit
values, output, last = sys.argv[1:]

class Killer:
    def report(self, event):
        if isinstance(event, StepEvent) and event.step == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

train(LoadedRecipe(check(json.loads(values)), {}, "x"), output, reporters=[Killer()])
"""


def test_killed_at_some_step_and_resumed_it_is_the_same_run(tmp_path, whole, gpt2_folder, pairs_file):
    output = tmp_path / "run"
    values = recipe(gpt2_folder, pairs_file, **SETTINGS, **METHODS["lora"]).recipe.model_dump_json()
    last = str(random.Random(0).randrange(1, TOTAL + 1))
    child = subprocess.run([sys.executable, "-c", KILLED, values, output, last], capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    train(output, resume=True)
    assert_same(output, whole("lora", pairs_file))


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory, gpt2_folder):
    """A run of method lora, stopped after step 7: the states of steps 6 and 7 are there."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    with pytest.raises(Interrupted):
        train(
            folder / "run",
            gpt2_folder,
            folder / "pairs.jsonl",
            reporters=[stop_at(7)],
            **SETTINGS,
            **METHODS["lora"],
        )
    return folder


@pytest.fixture
def stopped(tmp_path, stopped_once):
    """A copy of that run."""
    return Path(shutil.copytree(stopped_once / "run", tmp_path / "run"))


def spoil(file, how):
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


PARTS = ["trained.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"]


def test_a_damaged_newest_state_is_named_and_the_one_before_is_used(stopped, whole, pairs_file):
    spoil(stopped / "checkpoints" / "step-00000007" / "optimizer.safetensors", "flipped")
    listener = Listener()
    train(stopped, resume=True, reporters=[listener])
    notes = [event.text for event in listener.events if hasattr(event, "text")]
    assert notes[0] == "going on after step 6"
    assert "step-00000007 was passed over" in notes[1]
    assert "optimizer.safetensors is damaged" in notes[1]
    assert_same(stopped, whole("lora", pairs_file))


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_a_state_may_be_missing_or_damaged(stopped, part, how):
    from lorakit.errors import TrainingError
    from lorakit.training.state import newest

    for folder in (stopped / "checkpoints").iterdir():
        spoil(folder / part, how)
    with pytest.raises(TrainingError, match="holds no saved state to go on from") as caught:
        newest(stopped)
    assert part in str(caught.value)
    assert "step-00000007" in str(caught.value)


def test_a_state_without_its_hashes_is_not_whole(stopped):
    from lorakit.training.state import newest

    (stopped / "checkpoints" / "step-00000007" / "hashes.json").unlink()
    folder, damaged = newest(stopped)
    assert folder.name == "step-00000006"
    assert damaged == ["step-00000007 is not whole and was passed over"]


def test_a_damaged_best_state_is_named_at_the_end(stopped):
    from lorakit.training import state as states

    best = states.folder_of(stopped, 6)
    spoil(best / "trained.safetensors", "flipped")
    with pytest.raises(CheckpointError, match=r"step-00000006.trained\.safetensors is damaged"):
        states.restore_weights(best, torch.nn.Linear(1, 1))


def test_another_recipe_is_refused_with_the_values_then_and_now(stopped, stopped_once, gpt2_folder):
    changed = {**SETTINGS, "train__seed": 5, "method": {"name": "lora", "rank": 8}}
    with pytest.raises(LorakitError) as caught:
        train(stopped, gpt2_folder, stopped_once / "pairs.jsonl", resume=True, **changed)
    said = str(caught.value)
    assert "was started with another recipe" in said
    assert "method.rank: 4 then, 8 now" in said
    assert "train.seed: 0 then, 5 now" in said
    assert "--resume -o" in said


@pytest.fixture
def stopped_on_own_rows(tmp_path, gpt2_folder):
    """A run that was stopped after its first step, and the file of its rows."""
    rows, output = tmp_path / "own.jsonl", tmp_path / "run"
    rows.write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    with pytest.raises(Interrupted):
        train(output, gpt2_folder, rows, reporters=[stop_at(1)], **SETTINGS)
    return output, rows


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (PAIRS[::2], r"the training rows of \S+own\.jsonl \(22 then, 11 now\)"),
        ([{**PAIRS[0], "completion": "something else"}, *PAIRS[1:]], r"own\.jsonl \(22 as before, with other contents"),
    ],
)
def test_rows_that_changed_are_refused_on_resume(stopped_on_own_rows, changed, said):
    output, rows = stopped_on_own_rows
    before = rows.read_text(encoding="utf-8")
    rows.write_text("".join(f"{json.dumps(pair)}\n" for pair in changed), encoding="utf-8")
    with pytest.raises(LorakitError, match=rf"{output} was started with other rows.*{said}.*another -o\.$"):
        train(output, resume=True)
    rows.write_text(before, encoding="utf-8")
    train(output, resume=True)


def test_changed_evaluation_rows_are_refused_on_resume(tmp_path, gpt2_folder, pairs_file):
    held, output = tmp_path / "held.jsonl", tmp_path / "run"
    held.write_text(json.dumps(PAIRS[0] | {"prompt": "one"}) + "\n", encoding="utf-8")
    with pytest.raises(Interrupted):
        train(output, gpt2_folder, pairs_file, reporters=[stop_at(1)], **SETTINGS, data__eval=str(held))
    held.write_text(json.dumps(PAIRS[0] | {"prompt": "two"}) + "\n", encoding="utf-8")
    with pytest.raises(LorakitError, match=r"now: the evaluation rows of \S+held\.jsonl \(1 as before"):
        train(output, resume=True)


def test_a_run_of_an_earlier_version_that_kept_no_fingerprint_goes_on(stopped, whole, pairs_file):
    local = json.loads((stopped / "local.json").read_text(encoding="utf-8"))
    del local["rows"]
    (stopped / "local.json").write_text(json.dumps(local), encoding="utf-8")
    train(stopped, resume=True)
    assert_same(stopped, whole("lora", pairs_file))


def test_the_same_recipe_may_be_named_again(stopped, stopped_once, gpt2_folder, pairs_file, whole):
    train(stopped, gpt2_folder, stopped_once / "pairs.jsonl", resume=True, **SETTINGS, **METHODS["lora"])
    assert_same(stopped, whole("lora", pairs_file))


def test_a_finished_run_has_nothing_to_resume(whole, pairs_file):
    with pytest.raises(LorakitError, match=r"is finished, so there is nothing to resume.*lorakit train --model"):
        train(whole("lora", pairs_file), resume=True)


def test_no_run_has_nothing_to_resume(tmp_path):
    with pytest.raises(LorakitError, match="holds no unfinished run"):
        train(tmp_path / "nowhere", resume=True)


def test_an_existing_folder_is_not_touched_without_force(tmp_path, gpt2_folder, pairs_file, stopped):
    for folder, said in ((stopped, "--resume goes on with it"), (gpt2_folder, "--force to replace it")):
        before = sorted(file.name for file in folder.rglob("*"))
        with pytest.raises(LorakitError, match=said):
            train(folder, gpt2_folder, pairs_file)
        assert sorted(file.name for file in folder.rglob("*")) == before


def test_force_replaces_runs_alone(tmp_path, gpt2_folder, pairs_file):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(LorakitError, match="is not a run folder, so --force does not replace it"):
        train(mine, gpt2_folder, pairs_file, force=True)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_replaced_run_stays_until_the_new_one_is_whole(tmp_path, whole, gpt2_folder, pairs_file):
    output = tmp_path / "run"
    shutil.copytree(whole("full", pairs_file), output)
    before = weights(output)
    values = {**SETTINGS, **METHODS["lora"]}
    with pytest.raises(Interrupted, match=f"--resume -o {output}$"):
        train(output, gpt2_folder, pairs_file, force=True, reporters=[stop_at(4)], **values)
    after = weights(output)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    train(output, resume=True)
    assert_same(output, whole("lora", pairs_file))
    assert sorted(tmp_path.iterdir()) == [pairs_file, output]
    assert not (output / "model.safetensors").exists()


def test_a_finished_run_holds_what_is_shared_and_nothing_else(whole, pairs_file):
    assert sorted(file.name for file in whole("lora", pairs_file).iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "hashes.json",
        "local.json",
        "manifest.json",
        "metrics.jsonl",
        "recipe.yaml",
    ]


def test_two_runs_never_share_a_folder(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from lorakit.workflows.run_folders import locked\n"
        "with locked(Path(sys.argv[1]), True): print('held', flush=True); time.sleep(60)\n"
    )
    folder = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        with (
            pytest.raises(LorakitError, match=f"is in use by process {child.pid} on"),
            run_folders.locked(folder, True),
        ):
            pass
    finally:
        child.kill()
        child.wait()
    assert (folder / run_folders.LOCK).exists()
    with run_folders.locked(folder, True):
        pass


def test_a_run_that_fails_before_it_begins_leaves_no_folder(tmp_path, gpt2_folder, pairs_file):
    with pytest.raises(LorakitError, match="rank is 64"):
        train(tmp_path / "run", gpt2_folder, pairs_file, method={"name": "lora", "rank": 64})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("output", ["rows.jsonl", "rows.jsonl/run", "pairs.jsonl/a/b"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tmp_path, monkeypatch, output, pairs_file
):
    from lorakit.workflows import training

    (tmp_path / "rows.jsonl").write_text("")
    monkeypatch.setattr(training, "_prepare", lambda *_: pytest.fail("it began"))
    with pytest.raises(LorakitError, match="is a file"):
        train(tmp_path / output, "no-model", pairs_file)


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch, pairs_file):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(LorakitError, match="cannot be written"):
        train(tmp_path / "run", "no-model", pairs_file)


def test_early_stopping_is_remembered(tmp_path, monkeypatch, gpt2_folder, pairs_file):
    """Stopped by patience, and killed while the result is written: the resumed run learns no further."""
    from lorakit.training import loop
    from lorakit.workflows import finishing

    losses = iter([3.0, 2.0, 2.5, 2.5])
    monkeypatch.setattr(loop, "evaluate", lambda *_: Scores({"tokens": next(losses)}, {}))
    monkeypatch.setattr(finishing, "_move", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    output, listener = tmp_path / "run", Listener()
    with pytest.raises(Interrupted):
        train(output, gpt2_folder, pairs_file, **{**SETTINGS, "train__evaluate_every": 1, "train__patience": 2})
    monkeypatch.undo()
    result = train(output, resume=True, reporters=[listener])
    assert (result.state.step, result.state.best_step) == (3, 1)
    assert not any(isinstance(event, StepEvent) for event in listener.events)


def test_old_states_go_and_the_best_stays(tmp_path, monkeypatch, gpt2_folder, pairs_file):
    from lorakit.training import loop

    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(loop, "evaluate", lambda *_: Scores({"tokens": next(losses)}, {}))
    output = tmp_path / "run"
    values = {**SETTINGS, "train__evaluate_every": 1, "train__save_every": 1}
    with pytest.raises(Interrupted):
        train(output, gpt2_folder, pairs_file, reporters=[stop_at(5)], **values)
    names = sorted(folder.name for folder in (output / "checkpoints").iterdir())
    assert names == ["step-00000001", "step-00000004", "step-00000005"]


def test_force_does_not_replace_a_run_that_is_still_training(tmp_path):
    with (
        run_folders.locked(tmp_path / "live", fresh=True),
        pytest.raises(LorakitError, match=rf"live is in use by process {os.getpid()}"),
    ):
        run_folders.take(tmp_path / "live", resume=False, force=True)


def test_a_signal_that_was_ignored_at_the_start_stays_ignored():
    from lorakit.training.signals import Signals

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.number is None
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == signals._obey
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_a_launcher_passes_on_is_no_second_one(monkeypatch):
    from lorakit.training.signals import Signals

    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    for world, codes in (("2", []), ("1", [128 + signal.SIGTERM])):
        monkeypatch.setenv("WORLD_SIZE", world)
        with Signals() as signals, signals.remembered():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.number == signal.SIGTERM
        assert left == codes
