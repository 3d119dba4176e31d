"""SIGINT, SIGTERM and SIGHUP end a run cleanly: at once, or in the loop where everything can be saved first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from lorakit.errors import Interrupted

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def _launched() -> bool:
    """Whether a launcher started this process as one of several; it ends those that do not leave in time."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class Asked(Exception):
    """Raised by `Signals.check` where the loop can stop; the loop saves and turns it into `Interrupted`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """While entered, a signal raises Interrupted; within `remembered`, it is kept until `check` is called.

    Outside the main thread nothing can be caught, and nothing is.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that is remembered."""
        self.consequence = "nothing was written"
        """What a signal that comes now leaves behind, for its message."""
        self._remembering = False
        self._of_several = _launched()
        self._passed_on = False
        """Whether a signal has come to one of several processes: their launcher sends it once more."""
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Raise Asked when a signal is remembered."""
        if self.number is not None:
            raise Asked(self.number)

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Within this block a signal waits for `check`; a second one leaves at once, but one of several processes."""
        self._remembering = True
        try:
            yield
        finally:
            self._remembering = False

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)
                # Who started this program with a signal ignored (nohup, a shell's &) wants it ignored.
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._obey)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _obey(self, number: int, _: FrameType | None) -> None:
        # Read and set at once: the second one may come while the first is answered.
        answered, self._passed_on = self._passed_on, self._of_several
        if answered:
            return
        if not self._remembering:
            raise Interrupted(number, f"stopped by {signal.Signals(number).name}; {self.consequence}.")
        if self.number is not None:
            sys.stderr.write(f"\nleft at once; {self.consequence}.\n")
            sys.stderr.flush()
            os._exit(128 + number)
        self.number = number
