"""What holds for every number of the page: the machine, and the versions on both sides."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
from benchmarks.speed import harness

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")


def facts() -> dict[str, str]:
    """Return what is to be told, by name."""
    own, peers = _versions(Path(sys.executable)), _versions(harness.PEERS)
    return {
        "processor": f"{harness.processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "threads": os.environ.get("OMP_NUM_THREADS") or "as each tool takes them",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "lorakit": f"commit {_commit()}, with {own}",
        "peers": peers or "not installed",
    }


def _versions(python: Path) -> str:
    """Return the installed versions in an environment; empty where there is none."""
    program = (
        "import importlib.metadata as m, sys\n"
        "found = {d.name.lower(): d.version for d in m.distributions()}\n"
        "print(', '.join(f'{name} {found[name]}' for name in sys.argv[1:] if name in found))"
    )
    try:
        return subprocess.run([python, "-c", program, *PACKAGES, "trl"], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def _commit() -> str:
    asked = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, cwd=harness.ROOT).stdout.strip()
    except OSError:
        found = ""
    return found or "unknown"
