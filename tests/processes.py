"""Runs of several processes on processors: what starts them, the words that `lorakit train` is given, what they do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import PAIRS
from runs import metrics, weights

TRAIN = ("-m", "lorakit", "train")
SETTINGS = {
    "data__eval_rows": 1,
    "train__epochs": 2,
    "train__rows_per_step": 7,
    "train__micro_batch_tokens": 40,
    "train__evaluate_every": 2,
    "optim__learning_rate": 3e-3,
}
"""With them two processes have different numbers of micro-batches, and of the last step of an epoch one has no row."""
# Adam would make a step out of the rounding of a gradient that is 0, as that of a key's bias.
FULL = {"method__name": "full", "optim__name": "sgd", "optim__momentum": 0.9, "optim__learning_rate": 0.1}
# Frozen matrices are cut in bfloat16, what learns in float32.
MIXED = {"train__dtype": "bfloat16", "train__gradient_checkpointing": True}


def write_pairs(file: Path) -> Path:
    """Write the rows that these settings are made for."""
    file.write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    return file


def assert_same_steps(run: Path, expected: Path, tolerance: float = 1e-5) -> None:
    """Hold the loss curve and the weights of a run to those of another."""
    curve, wanted = metrics(run), metrics(expected)
    assert [line["step"] for line in curve] == [line["step"] for line in wanted]
    for found, line in zip(curve, wanted, strict=True):
        assert found["loss"] == pytest.approx(line["loss"], abs=tolerance)
        if line["kind"] == "step":
            assert found["gradient_norm"] == pytest.approx(line["gradient_norm"], rel=10 * tolerance)
    trained = weights(run)
    for name, tensor in weights(expected).items():
        assert torch.allclose(trained[name], tensor, atol=tolerance), name


def free_port() -> str:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def command(kind: str, *arguments) -> list[str]:
    """What starts `arguments` on two processes."""
    port = free_port()
    starters = {
        "accelerate": ["accelerate.commands.launch", "--multi_gpu"],
        "accelerate with fsdp": ["accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2"],
        "accelerate with deepspeed": ["accelerate.commands.launch", "--use_deepspeed", "--zero_stage", "3"],
        "torchrun": ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", port],
        "accelerate without --multi_gpu": ["accelerate.commands.launch", "--cpu", "--num_processes", "2"],
    }
    if kind.startswith("accelerate") and "without" not in kind:
        starters[kind] += ["--num_processes", "2", "--main_process_port", port]
    return [sys.executable, "-m", *starters[kind], *map(str, arguments)]


def surroundings(**variables: str) -> dict[str, str]:
    """The environment of two processes on processors."""
    return {
        **{name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")},
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        **variables,
    }


def launch(kind: str, *arguments, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `arguments` on two processes to the end."""
    return subprocess.run(
        command(kind, *arguments),
        capture_output=True,
        text=True,
        env=surroundings(**variables),
        timeout=240,
        check=False,
    )


def options(model, data, **values) -> list[str]:
    """Arguments of `lorakit train` that equal those of `runs.train`."""
    given = {
        "train.device": "cpu",
        "train.dtype": "float32",
        "train.sample_answers": 0,
        **{key.replace("__", "."): value for key, value in values.items()},
    }
    sets = [word for key, value in given.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return ["--model", str(model), "--data", str(data), *sets]
