"""What a comparison consists of: a row, its arms, and what one arm came to."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

TINY = os.environ.get("LORAKIT_BENCH_TINY") == "1"
"""Whether small work is done, to try the way and not the speed (`--tiny`); an arm's process inherits it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one arm took for its work, once."""

    seconds: float
    """By the clock on the wall."""
    processor_seconds: float
    """Of one core; all threads, and the processes that the arm started."""
    work: float
    """In the unit of the row."""
    peak_bytes: int
    """Most that the process held, libraries included; of processes that the arm started, the largest."""
    imported_bytes: int | None = None
    """What the process held when the work began, where that is to be told apart."""
    loss: float | None = None
    """Of the rows for evaluation after training, in nats a label; computed for all arms by the same code."""
    output: str | None = None
    """Digest of what was made, where arms should make the same."""
    note: str = ""

    def noted(self, note: str) -> Outcome:
        """Return this outcome with something more to be told."""
        return replace(self, note="; ".join(part for part in (self.note, note) if part))


class Stopwatch:
    """Times one stretch of an arm's work."""

    def start(self) -> None:
        """Begin."""
        self.imported_bytes = _resident()
        self._begun = time.perf_counter(), _processor()

    def stop(self) -> None:
        """End; a later call moves the end."""
        self.seconds = time.perf_counter() - self._begun[0]
        self.processor_seconds = _processor() - self._begun[1]

    def outcome(self, work: float, *, above_imports: bool = False) -> Outcome:
        """Return what the stretch took, and the peak of memory up to now."""
        scale = 1 if sys.platform == "darwin" else 1024
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return Outcome(
            seconds=self.seconds,
            processor_seconds=self.processor_seconds,
            work=work,
            peak_bytes=max(resource.getrusage(kind).ru_maxrss for kind in kinds) * scale,
            imported_bytes=self.imported_bytes if above_imports else None,
        )


def _processor() -> float:
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True)
class Arm:
    """One way to do the work of a row."""

    name: str
    run: Callable[[Path], Outcome]
    """Takes the folder of models and rows; runs in a process of its own."""
    peer: bool = False
    """Whether it runs in the environment of the peers."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How the cost of the same training grows: a row with a plot."""

    axis: str
    """What grows, in words."""
    values: tuple[int, ...]
    lines: tuple[str, str] = ("Trainer + PEFT", "lorakit")
    """An arm is called by one of these and the value: `lorakit · 64`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison; the first arm is what the others are measured against."""

    name: str
    title: str
    work: str
    """What every arm does, in a sentence or two."""
    arms: tuple[Arm, ...]
    prepare: Callable[[Path], None]
    """Writes models and rows into the folder, those that are not there; in a process of its own."""
    unit: str = ""
    """Plural of what `Outcome.work` counts; empty: there is one piece, and its seconds say all."""
    aim: str = ""
    rounds: int | None = None
    """Most rounds that are taken; None: as many as are asked for."""
    growth: Growth | None = None
