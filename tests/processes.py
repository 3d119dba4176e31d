"""Runs of several processes on processors: what starts them, and the words that `lorakit train` is given."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

TRAIN = ("-m", "lorakit", "train")


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
