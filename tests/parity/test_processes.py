"""Two processes on CPUs take the steps of one: the same loss curve and the same weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import PAIRS
from every_objective import CASES, Workshop
from processes import TRAIN, assert_same_steps, launch, options, write_pairs
from runs import train, weights
from steps_on_processes import every_objective

TESTS = Path(__file__).parents[1]
SETTINGS = {
    "data__eval_rows": 1,
    "train__epochs": 2,
    "train__rows_per_step": 7,
    "train__evaluate_every": 2,
    "optim__learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, gpt2_folder):
    """The run of one process, and its rows."""
    folder = tmp_path_factory.mktemp("alone")
    rows = write_pairs(folder / "pairs.jsonl")
    return train(folder / "run", gpt2_folder, rows, **SETTINGS).folder, rows


@pytest.mark.parametrize("kind", ["accelerate", "torchrun"])
def test_two_processes_take_the_steps_of_one(tmp_path, gpt2_folder, alone, kind):
    """22 rows in steps of 7 leave one row for the last step of an epoch, so that one process has none.

    It has none either of the one row that is evaluated.
    """
    expected, rows = alone
    output = tmp_path / "run of two"
    finished = launch(kind, *TRAIN, *options(gpt2_folder, rows, **SETTINGS), "-o", output)
    assert finished.returncode == 0, finished.stderr[-3000:]
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["metrics"]["processes"] == 2
    assert finished.stdout == f"{output}\n"
    assert_same_steps(output, expected)


def test_two_processes_that_share_a_stream_take_the_steps_of_one(tmp_path, gpt2_folder):
    """One of them encodes 256 rows, the other the 44 behind them, in both epochs that are begun."""
    rows, held_out = tmp_path / "rows.jsonl", tmp_path / "eval.jsonl"
    long, broken = {"prompt": "x", "completion": "word " * 80}, {"prompt": "a"}
    for file, written in ((rows, [*(PAIRS * 13)[:289], long, broken, *PAIRS[:10]]), (held_out, PAIRS[:1])):
        file.write_text("".join(f"{json.dumps(row)}\n" for row in written), encoding="utf-8")
    stream = {"data__stream": True, "data__eval": str(held_out), "train__max_steps": 8, "train__rows_per_step": 50}
    skipped = {"data__broken": "skip", "data__too_long": "drop"}
    alone = train(tmp_path / "run of one", gpt2_folder, rows, train__epochs=None, **stream, **skipped).folder
    output = tmp_path / "run of two"
    finished = launch("torchrun", *TRAIN, *options(gpt2_folder, rows, **stream, **skipped), "-o", output)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert_same_steps(output, alone)
    assert finished.stderr.count("1 of 301 rows skipped") == 1
    assert finished.stderr.count("1 row longer than 64 tokens: left out") == 1


def test_two_processes_share_what_comes_out_of_frozen_blocks(tmp_path, gpt2_folder, alone):
    """In a later epoch a row goes to either process; one row is left for the last step, and one is evaluated."""
    settings = {**SETTINGS, "method__name": "lora", "method__last_blocks": 1, "train__epochs": 3}
    expected = train(tmp_path / "run of one", gpt2_folder, alone[1], **{**settings, "speed__frontier": False}).folder
    output = tmp_path / "run of two"
    finished = launch("torchrun", *TRAIN, *options(gpt2_folder, alone[1], **settings), "-o", output)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "frontier" in json.loads((output / "manifest.json").read_text())["speed"]
    assert not (output / "frontier").exists()
    trained = weights(output)
    for name, tensor in weights(expected).items():
        assert torch.allclose(trained[name], tensor, atol=1e-5), name


def test_a_launcher_that_starts_one_process_where_two_were_asked_for_is_an_error(tmp_path, gpt2_folder, alone):
    finished = launch("accelerate without --multi_gpu", *TRAIN, *options(gpt2_folder, alone[1]), "-o", tmp_path / "run")
    assert finished.returncode == 1
    assert "several processes were asked for, and 1 found each other" in finished.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", [[], ["fsdp2"]], ids=["whole weights", "parts of the weights"])
def test_two_processes_take_the_steps_of_one_with_every_objective(tmp_path, how):
    """Weights after two steps, and the losses and shares of an evaluation."""
    Workshop.filled(tmp_path)
    expected = every_objective(tmp_path)
    output = tmp_path / "of two.safetensors"
    finished = launch("torchrun", TESTS / "steps_on_processes.py", tmp_path, output, *how)
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = load_file(output)
    assert found.pop("processes") == 2
    assert found.keys() == expected.keys()
    assert {name.partition(": ")[0] for name in found} == set(CASES)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-6, atol=1e-6), name
