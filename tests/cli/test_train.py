"""`lorakit train` as it is typed: what it says, what it prints, what it writes and how it leaves."""

import json
import os
import signal

import pytest
from typer.testing import CliRunner

from conftest import PAIRS
from lorakit.cli.main import app
from lorakit.errors import LorakitError
from lorakit.workflows import kept_rows
from runs import metrics, train, weights

SMALL = ("--device", "cpu", "--dtype", "float32", "--epochs", "1", "--set", "train.sample_answers=2")


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, ["train", *map(str, arguments)], input=stdin)


def done(result):
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 0, result.stderr
    return result


def fault(result):
    """The message of a user's mistake, which the entry point prints without a traceback."""
    assert isinstance(result.exception, LorakitError), (result.exception, result.stderr)
    assert result.exception.exit_code == 1
    assert result.stdout == ""
    return str(result.exception)


def plain(text):
    return " ".join(text.split())


def test_a_tracker_gets_numbers_and_words_and_no_path(tmp_path, gpt2_folder, pairs_file, monkeypatch):
    from accelerate import Accelerator

    import lorakit.workflows.launching as launching

    told = {}
    monkeypatch.setattr(launching, "_check_trackers", lambda _: None)
    monkeypatch.setattr(Accelerator, "init_trackers", lambda _, __, config: told.update(config))
    monkeypatch.setattr(Accelerator, "log", lambda _, values, step: told.setdefault("steps", []).append(step))
    settings = ("--set", "train.trackers=[tensorboard]")
    done(run("--model", gpt2_folder, "--data", pairs_file, "-o", tmp_path / "run", *SMALL, *settings))
    assert told.pop("steps") == [0, 1, 1]
    assert told["data.train"] == "pairs.jsonl"
    assert told["method.rank"] == 8
    assert all(isinstance(value, int | float | str) for value in told.values())
    assert not any("/" in str(value) for value in told.values())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, gpt2_folder):
    """A run with a space in its name, as its command left it: folder and result."""
    folder = tmp_path_factory.mktemp("cli")
    rows = folder / "my rows.jsonl"
    rows.write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    result = run("--model", gpt2_folder, "--data", rows, "-o", folder / "my run", *SMALL, "--set", "method.rank=4")
    return folder / "my run", done(result), rows


def test_stdout_holds_the_folder_and_nothing_else(finished):
    folder, result, _ = finished
    assert result.stdout == f"{folder}\n"


def test_the_screen_tells_what_is_trained_and_what_came_of_it(finished):
    said = plain(finished[1].stderr)
    for part in (
        "22 to learn, 2 to evaluate · prompt → completion",
        "local:tiny gpt2 · gpt2 · 40.3 k parameters · 2 blocks · 64 positions",
        "answers are learned, prompts are read",
        "trains 4,096 of 40,320 weights (10.2%)",
        "packed, no padding · float32 (as asked)",
        "peak memory about",
        "1 process on cpu",
        "eval loss",
        "reloaded and equal ✓",
        "overfitting",
        "next lorakit generate",
    ):
        assert part in said, part


def test_a_dry_run_shows_everything_on_stdout_and_writes_nothing(tmp_path, monkeypatch, gpt2_folder, pairs_file):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = done(run("--model", gpt2_folder, "--data", pairs_file, *SMALL, "--dry-run", "--lr", "0.01"))
    said = plain(result.stdout)
    for part in (
        "learning_rate: 0.01 # --lr",
        "rank: 8 # default",
        "22 to learn, 2 to evaluate",
        "trains 8,192 of 40,320 weights",
        "peak memory about",
        "tokens at once",
        "learns tensors weights share size",
    ):
        assert part in said, part
    assert result.stderr == "dry run: nothing was written\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_that_cannot_be_used_is_told_once_also_where_little_is_said(
    tmp_path, gpt2_folder, pairs_file, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(kept_rows, "_SMALL", 0)
    for quiet in (["-q"], []):
        result = done(run("--model", gpt2_folder, "--data", pairs_file, "-o", tmp_path / f"run{quiet}", *SMALL, *quiet))
        assert result.stderr.count("encoded rows are not kept") == 1


def test_quiet_says_nothing_beside_the_folder(tmp_path, gpt2_folder, pairs_file):
    result = done(run("--model", gpt2_folder, "--data", pairs_file, "-o", tmp_path / "run", *SMALL, "-q"))
    assert result.stdout == f"{tmp_path / 'run'}\n"
    assert result.stderr == ""


def test_rows_come_from_standard_input(tmp_path, gpt2_folder, finished):
    text = "".join(f"{json.dumps(pair)}\n" for pair in PAIRS)
    options = ("--model", gpt2_folder, "--data", "-", "-o", tmp_path / "run", *SMALL, "--set", "method.rank=4")
    result = done(run(*options, stdin=text))
    assert "standard input: read as JSONL" in result.stderr
    other = weights(finished[0])
    assert all(tensor.equal(other[name]) for name, tensor in weights(tmp_path / "run").items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "method.rnak=4"), "method.rnak"),
        (("--set", "method.rank=99"), "rank is 99"),
        (("--lr", "fast"), "optim.learning_rate"),
        (("--max-length", "65"), "data.max_length is 65, and local:tiny gpt2 has 64 positions"),
        (("--max-length", "5"), "rows are longer than max_length 5"),
        (("--set", "method=freeze", "--set", "method.blocks=3"), "method.blocks is 3; this model has 2 blocks"),
        (("--set", "data.columns.prompt=question"), "question"),
        (("--set", "data.rows=5", "--set", "data.stream=true"), "train.max_steps"),
        (("--device", "cuda"), "torch finds no CUDA GPU"),
    ],
)
def test_a_fault_of_a_recipe_leaves_with_1_and_says_where(tmp_path, gpt2_folder, pairs_file, arguments, said):
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    options = ("--model", gpt2_folder, "--data", pairs_file, "-o", tmp_path / "run", *SMALL)
    assert said in fault(run(*options, *arguments))
    assert not (tmp_path / "run").exists()


def test_rows_of_evaluation_must_mean_what_those_of_training_mean(tmp_path, gpt2_folder, pairs_file):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "Once upon a time."}\n')
    options = ("--model", gpt2_folder, "--data", pairs_file, "-o", tmp_path / "run", *SMALL)
    assert "holds 'text' rows and data.train 'prompt_completion' rows" in fault(
        run(*options, "--set", f"data.eval={texts}")
    )


@pytest.mark.parametrize("arguments", [(), ("--no-such-option",), ("--set", "method.rank")])
def test_wrong_usage_leaves_with_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_resume_needs_to_know_which_run():
    assert "give its folder with -o" in fault(run("--resume"))


def test_an_adapter_is_gone_on_from_with_its_own_rank(tmp_path, finished):
    folder, _, rows = finished
    done(run("--model", folder, "--data", rows, "-o", tmp_path / "run", *SMALL))
    first, second = (json.loads((one / "manifest.json").read_text()) for one in (folder, tmp_path / "run"))
    assert second["method"] == first["method"]
    assert second["method"]["rank"] == 4
    assert second["parent"] is not None
    assert second["base"] == first["base"]
    assert second["metrics"]["evaluation_loss_before"] == first["metrics"]["evaluation_loss"]
    assert "the adapter gone on from" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_an_adapter_is_not_gone_on_from_with_another_rank(tmp_path, finished):
    folder, _, rows = finished
    said = fault(run("--model", folder, "--data", rows, "-o", tmp_path / "run", *SMALL, "--set", "method.rank=8"))
    assert "rank: 4 there, 8 here" in said
    assert f"lorakit merge '{folder}'" in said


def test_a_frozen_half_is_gone_on_from_at_its_own_learning_rate(tmp_path, gpt2_folder, pairs_file):
    first = train(tmp_path / "first", gpt2_folder, pairs_file, method="freeze")
    second = train(tmp_path / "second", first.folder, pairs_file)
    recipe = second.prepared.loaded
    assert (recipe.recipe.method.name, recipe.recipe.learning_rate) == ("freeze", 1e-4)
    assert recipe.origins["optim.learning_rate"] == "default of method freeze"
    assert second.state.first_loss == first.state.best_loss


def test_labels_that_the_rows_turn_out_to_hold_set_the_learning_rate_and_the_recipe_says_why(tmp_path, gpt2_folder):
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"row {number},{'ab'[number % 2]}\n" for number in range(40)))
    said = done(run("--model", gpt2_folder, "--data", rows, "-o", tmp_path / "run", *SMALL, "--dry-run")).stdout
    assert "learning_rate: 0.002 # default of method lora for sequence_classification at width 32" in plain(said)


def test_an_adapter_gone_on_from_can_be_resumed(tmp_path, finished):
    """The recipe that is named again says nothing of the method, which came from the adapter."""
    from lorakit.errors import Interrupted
    from runs import Listener

    folder, _, rows = finished

    def stop(event):
        if getattr(event, "gradient_norm", None) is not None and event.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "run", folder, rows, reporters=[Listener(stop)])
    assert train(tmp_path / "run", folder, rows, resume=True).state.step == 6


@pytest.fixture
def streaming(tmp_path):
    """Rows to stream, of which one is too long and two lack an answer; and rows to evaluate."""
    rows = [*PAIRS, {"prompt": "x", "completion": "word " * 80}, {"prompt": "a"}, {"prompt": "b", "completion": ""}]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    held_out = [{"prompt": "name: Fir", "completion": "Fir lies in the north."}]
    (tmp_path / "eval.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in held_out), encoding="utf-8")
    return {
        "data__eval": str(tmp_path / "eval.jsonl"),
        "data__stream": True,
        "data__stream_buffer": 5,
        "data__broken": "skip",
        "data__too_long": "drop",
        "train__epochs": None,
        "train__max_steps": 12,
        "train__dropout": 0.1,
        "method": "full",
    }


def test_a_stream_that_was_stopped_goes_on_as_if_it_never_had(tmp_path, gpt2_folder, streaming):
    from lorakit.errors import Interrupted
    from runs import Listener

    def stop(event):
        if getattr(event, "gradient_norm", None) is not None and event.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    rows = tmp_path / "rows.jsonl"
    whole = train(tmp_path / "whole", gpt2_folder, rows, **streaming).folder
    with pytest.raises(Interrupted):
        train(tmp_path / "run", gpt2_folder, rows, reporters=[Listener(stop)], **streaming)
    train(tmp_path / "run", resume=True)
    assert metrics(tmp_path / "run") == metrics(whole)
    other = weights(whole)
    assert all(tensor.equal(other[name]) for name, tensor in weights(tmp_path / "run").items())


def test_rows_that_a_stream_leaves_out_are_counted_once(tmp_path, gpt2_folder, streaming):
    """Twelve steps of four rows read the file nearly twice; each row is counted in the first reading alone."""
    from runs import Listener

    listener = Listener()
    train(tmp_path / "run", gpt2_folder, tmp_path / "rows.jsonl", reporters=[listener], **streaming)
    notes = [event.text for event in listener.events if hasattr(event, "text")]
    assert [note for note in notes if "skipped" in note] == [
        "2 of 27 rows skipped: rows.jsonl line 26: has no 'completion' (it has 'prompt'); "
        "rows.jsonl line 27: 'completion' is empty."
    ]
    assert "1 row longer than 64 tokens: left out" in notes


def test_a_broken_row_in_a_stream_saves_what_was_learned_before_it(tmp_path, gpt2_folder, streaming):
    rows = tmp_path / "rows.jsonl"
    lines = [json.dumps(pair) for pair in PAIRS * 30] + ['{"prompt": "a"}']
    rows.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    values = {**streaming, "data__broken": "error", "train__max_steps": 400, "train__rows_per_step": 40}
    with pytest.raises(LorakitError, match=r"rows\.jsonl line 721: has no 'completion'"):
        train(tmp_path / "run", gpt2_folder, rows, **values)
    states = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert states[-1] > "step-00000010"


def test_a_resumed_run_takes_no_options(tmp_path):
    message = fault(run("--resume", "-o", tmp_path / "run", "--lr", "1e-2", "--set", "train.seed=1"))
    assert message == "--resume goes on with the run's own recipe; leave out --lr, --set train.seed."
