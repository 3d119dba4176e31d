"""How fast a process trains, by the clock on the wall."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Pace:
    """The speed of this process since it began to train, evaluations and saved states included."""

    started: float = field(default_factory=time.perf_counter)
    tokens: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        self._told = self.started

    def per_second(self) -> float:
        """Return tokens a second."""
        return self.tokens / max(1e-9, time.perf_counter() - self.started)

    def seconds_left(self, steps: int) -> float:
        """Return the seconds that so many more steps will take."""
        return (time.perf_counter() - self.started) / max(1, self.steps) * steps

    def lap(self) -> float:
        """Return the seconds since the last lap; at first, since the beginning."""
        now = time.perf_counter()
        lap, self._told = now - self._told, now
        return lap
