"""How threads wait for each other: awake for a moment where all cores are free, else asleep.

The threads of a product meet again after it, some ten thousand times a second in a small model. To wake one that sleeps
takes longer than many of these products. One that stays awake keeps a core from other processes, which may be what the
others wait for.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path

SPINS = 5000
"""How often libgomp looks before it sleeps: on idle cores 1,000 looks gain two fifths of what 5,000 do, more gain none;
beside one process that works 5,000 cost a third, and 20,000 two thirds (benchmarks/waiting.py)."""
_LOOKS = 3
"""A process that works is there at each look; what the system does for a moment is not."""


def choose(environment: MutableMapping[str, str], stat: Path = Path("/proc/stat")) -> None:
    """Set how threads wait, unless the user has; libgomp reads it once, when torch loads it.

    Args:
        environment: That of this process, or of one to be started.
        stat: The kernel's counts (proc_stat(5)); where there is none, threads sleep.
    """
    if environment.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        return
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    if _alone(stat):
        # Of the two, libgomp takes this one.
        environment["GOMP_SPINCOUNT"] = str(SPINS)


def awake() -> bool:
    """Whether threads of this process look a number of times before they sleep."""
    return os.environ.get("GOMP_SPINCOUNT", "0") != "0"


def _alone(stat: Path) -> bool:
    """Whether no other process of this machine wants a core at one of a few looks."""
    for _ in range(_LOOKS):
        try:
            lines = stat.read_text(encoding="ascii").splitlines()
        except OSError:
            return False
        if "procs_running 1" in lines:
            return True
        time.sleep(0.001)
    return False
