"""SIGINT, SIGTERM and SIGHUP ask the loop to save and leave; a second one leaves at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Asked(Exception):
    """Raised by `Signals.check` where the loop can stop; the loop saves and turns it into `Interrupted`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """While entered, remembers the first signal in place of obeying it.

    Outside the main thread nothing can be caught, and nothing is.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Raise Asked when a signal has come."""
        if self.number is not None:
            raise Asked(self.number)

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            sys.stderr.write("\nleft at once; what was saved before stays.\n")
            sys.stderr.flush()
            os._exit(128 + number)
        self.number = number
