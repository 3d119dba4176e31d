"""How many looks a thread should take before it sleeps: the steps of a small model on idle cores, and beside others.

``python -m benchmarks.waiting [rounds]`` trains the recipe `quickstart` for some steps with each count, by turns, alone
and beside one process that always works, and prints the medians in tokens a second.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COUNTS = (0, 1000, 5000, 20_000, 100_000)
STEPS = 20
SPEED = re.compile(r"([\d,]+) tok/s")


def tokens_a_second(count: int) -> float:
    """Return the speed that a fresh process shows after its last step."""
    with tempfile.TemporaryDirectory() as place:
        given = {"train.max_steps": STEPS, "train.evaluate_every": STEPS, "train.sample_answers": 0}
        settings = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "lorakit", "train", "quickstart", "-o", str(Path(place) / "run"), *settings]
        environment = {**os.environ, "GOMP_SPINCOUNT": str(count)}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, encoding="utf-8")
    return float(SPEED.findall(done.stderr)[-1].replace(",", ""))


@contextmanager
def neighbour() -> Iterator[None]:
    """Within this block another process keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measured(rounds: int) -> list[float]:
    """Return the median of each count."""
    found = [[tokens_a_second(count) for count in COUNTS] for _ in range(rounds)]
    return [statistics.median(one) for one in zip(*found, strict=True)]


def main(rounds: str = "3") -> None:
    alone = measured(int(rounds))
    with neighbour():
        beside = measured(int(rounds))
    for count, idle, busy in zip(COUNTS, alone, beside, strict=True):
        print(f"{count:>7,} looks  alone {idle:7,.0f} tok/s  beside a busy process {busy:7,.0f} tok/s")


if __name__ == "__main__":
    main(*sys.argv[1:])
