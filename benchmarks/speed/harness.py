"""The one place where arms are started, and their measurements kept: each in a fresh process, by turns, none twice."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from benchmarks.speed.row import TINY, Outcome, Row

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
TELLING = ("__main__.py", "arithmetic.py", "facts.py", "page.py", "plots.py")
"""What only tells of measurements: changing it makes none of them another."""


PREPARATION = ""
"""In the place of an arm's name: models and rows are written."""
FAILED = "FAILED"
"""How the line of an arm begins that came to nothing."""


@dataclass(frozen=True)
class Measurement:
    """One arm of one round."""

    row: str
    arm: str
    round: int
    """From 0."""
    outcome: Outcome
    foreign: float
    """Cores that other processes kept busy meanwhile."""


@dataclass
class Journal:
    """A file of JSON lines with all that was measured; what this code measured on this processor is not done again."""

    file: Path
    found: dict[tuple[str, str, int], Measurement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        for line in lines:
            # A line that an interruption cut short is no measurement.
            if line.endswith("}"):
                values = json.loads(line)
                if values.pop("stamp") == stamp():
                    self._keep(Measurement(**{**values, "outcome": Outcome(**values["outcome"])}))

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement, on disk before anything else happens."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        whole = not self.file.exists() or self.file.read_bytes()[-1:] in (b"", b"\n")
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(("" if whole else "\n") + json.dumps({"stamp": stamp(), **asdict(measurement)}) + "\n")
        self._keep(measurement)

    def of(self, row: str) -> dict[str, list[Measurement]]:
        """Return the measurements of a row by arm, in the order of the rounds."""
        by_arm: dict[str, list[Measurement]] = {}
        for _, measurement in sorted(self.found.items(), key=lambda item: item[0][2]):
            if measurement.row == row:
                by_arm.setdefault(measurement.arm, []).append(measurement)
        return by_arm

    def _keep(self, measurement: Measurement) -> None:
        self.found[measurement.row, measurement.arm, measurement.round] = measurement


@cache
def stamp() -> str:
    """Return a digest of what decides a measurement: the code of lorakit and of the arms, versions, and the machine."""
    arms = [file for file in (ROOT / "benchmarks" / "speed").rglob("*.py") if file.name not in TELLING]
    versions = [ROOT / "constraints.txt", ROOT / "benchmarks" / "peers.txt"]
    machine = (processor(), os.cpu_count(), os.environ.get("OMP_NUM_THREADS"), TINY)
    digest = hashlib.sha256(str(machine).encode())
    for file in sorted([*(ROOT / "src").rglob("*.py"), *arms, *versions]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def processor() -> str:
    """Return the processor as the system names it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def run(row: Row, rounds: int, folder: Path, journal: Journal) -> Iterator[str]:
    """Measure what the journal lacks, A B A B; yield a line for each measurement, and for each arm that fails."""
    wanted = [(number, arm) for number in range(min(rounds, row.rounds or rounds)) for arm in row.arms]
    missing = [(number, arm) for number, arm in wanted if (row.name, arm.name, number) not in journal.found]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _worker(Path(sys.executable), row.name, PREPARATION, folder)
    except ChildProcessError as error:
        yield f"{FAILED}  {row.name}  preparation: {error}"
        return
    broken = set()
    for number, arm in missing:
        if arm.name in broken:
            continue
        try:
            outcome, foreign = _worker(PEERS if arm.peer else Path(sys.executable), row.name, arm.name, folder)
        except ChildProcessError as error:
            broken.add(arm.name)
            yield f"{FAILED}  {row.name}  {arm.name}: {error}"
            continue
        measurement = Measurement(row.name, arm.name, number, Outcome(**outcome), foreign)
        journal.add(measurement)
        yield shown(measurement)


def shown(measurement: Measurement) -> str:
    """Return a measurement in a line."""
    one = measurement.outcome
    loss = "" if one.loss is None else f"  loss {one.loss:.4f}"
    return (
        f"{measurement.row}  round {measurement.round + 1}  {measurement.arm:<44} {one.seconds:8.3f} s  "
        f"{one.work / one.seconds:10,.1f}/s  {one.peak_bytes / 1e6:6,.0f} MB{loss}  others {measurement.foreign:.2f}"
    )


def _worker(python: Path, row: str, arm: str, folder: Path) -> tuple[Any, float]:
    """Run an arm in a fresh process; return what it printed, and how many cores others kept busy meanwhile.

    Raises:
        ChildProcessError: It failed; the end of what it said.
    """
    command = [str(python), "-m", "benchmarks.speed.worker", row, arm, str(folder.resolve())]
    own, busy, begun = _spent(), _busy(), time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=_environment(python, folder))
    except OSError as error:
        raise ChildProcessError(f"{error}; make .venv-peers/.installed makes the peers' environment") from error
    others = (_busy() - busy) - (_spent() - own)
    if done.returncode:
        raise ChildProcessError(f"exit code {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout), max(0.0, others / (time.perf_counter() - begun))


def _environment(python: Path, folder: Path) -> dict[str, str]:
    # What arms keep for a second start stays beside their models, and what users keep stays out.
    caches = {name: str(folder.resolve() / "cache" / name) for name in ("HF_HOME", "LORAKIT_CACHE")}
    environment = {**os.environ, **caches, "HF_HUB_OFFLINE": "1"}
    if python != PEERS:
        # Not above: what draws pictures runs in the environment of the peers.
        from lorakit.fast import waiting

        # As the command line of lorakit does, before torch is loaded; peers run as they come.
        waiting.choose(environment)
    return environment


def _spent() -> float:
    return sum(os.times()[:4])


def _busy() -> float:
    """Return the processor seconds that all processes of the machine have taken."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - _counted_twice(times))


def _counted_twice(times: Any) -> float:
    """Return the time of guests, which the system counts as their host's, too."""
    return float(getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0))
