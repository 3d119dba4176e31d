"""Two processes on CPUs, each with a part of the weights (FSDP2), take the steps of one that has them whole."""

import json
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch

from processes import (
    FULL,
    MIXED,
    SETTINGS,
    TRAIN,
    assert_same_steps,
    command,
    launch,
    options,
    surroundings,
    write_pairs,
)
from runs import metrics, train, weights

TESTS = Path(__file__).parents[1]
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("rows") / "pairs.jsonl")


# Matrices are sums of two weights, cut one by one.
DELTA = {**FULL, "method__name": "delta"}


@pytest.mark.parametrize(
    ("kind", "changes", "tolerance"),
    [
        ("accelerate with fsdp", {}, 1e-5),
        ("torchrun", FULL, 1e-5),
        ("torchrun", DELTA, 1e-5),
        ("torchrun", MIXED, 1e-2),
        ("torchrun", {**MIXED, "method__name": "delta"}, 1e-2),
    ],
    ids=["lora", "full", "delta", "bfloat16", "delta in bfloat16"],
)
def test_two_processes_with_parts_of_the_weights_take_the_steps_of_one(
    tmp_path, gpt2_folder, pairs, kind, changes, tolerance
):
    settings = {**SETTINGS, **changes}
    expected = train(tmp_path / "alone", gpt2_folder, pairs, **settings).folder
    output = tmp_path / "of two"
    arguments = options(gpt2_folder, pairs, **settings)
    finished = launch(kind, *TRAIN, *arguments, "-o", output, **SHARDED)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "fsdp2 over 2 processes" in json.loads((output / "manifest.json").read_text())["speed"]
    assert_same_steps(output, expected, tolerance)


@pytest.mark.parametrize("variables", [{}, SHARDED], ids=["whole weights", "parts of the weights"])
def test_a_signal_to_one_process_stops_both_and_they_resume_bit_for_bit(tmp_path, gpt2_folder, pairs, variables):
    finished = launch("torchrun", TESTS / "stopped_on_processes.py", tmp_path, gpt2_folder, pairs, **variables)
    assert finished.returncode == 0, finished.stderr[-3000:]
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def test_a_signal_to_a_launcher_and_its_processes_is_one_signal(tmp_path, gpt2_folder, pairs):
    """As SLURM sends it: each process gets it a second time, from the launcher, while it saves."""
    output = tmp_path / "run"
    arguments = options(gpt2_folder, pairs, **{**SETTINGS, "train__epochs": 400, "train__evaluate_every": 1000})
    words = command("torchrun", *TRAIN, *arguments, "-o", output)
    with subprocess.Popen(words, env=surroundings(), stderr=subprocess.PIPE) as started:
        while "gradient_norm" not in _text(output / "metrics.jsonl"):
            assert started.poll() is None, started.stderr.read().decode()
            time.sleep(0.02)
        launcher = psutil.Process(started.pid)
        for process in (*launcher.children(recursive=True), launcher):
            process.send_signal(signal.SIGTERM)
        said = started.stderr.read().decode()
    assert "stopped by SIGTERM after step" in said, said[-3000:]
    assert "left at once" not in said
    states = sorted((output / "checkpoints").glob("step-*"))
    assert int(states[-1].name.removeprefix("step-")) == metrics(output)[-1]["step"] > 0


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
