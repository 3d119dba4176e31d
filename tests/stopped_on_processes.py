"""Three runs on the processes this was started with: one to its end, one that a signal stops, and its resumption.

``torchrun ... FOLDER MODEL ROWS``: the runs are FOLDER/whole and FOLDER/stopped. The signal comes to one process alone.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import runs
from lorakit.__main__ import leave
from lorakit.errors import Interrupted
from lorakit.training.events import StepEvent
from lorakit.workflows.launching import leave_group

SETTINGS = {"train__epochs": 2, "train__rows_per_step": 7, "train__save_every": 3, "train__dropout": 0.1}
STOP_AFTER = 4


def stop(event: object) -> None:
    """Send the signal to this process when the step was taken."""
    if isinstance(event, StepEvent) and event.step == STOP_AFTER:
        os.kill(os.getpid(), signal.SIGTERM)


def three_runs(folder: Path, model: Path, rows: Path) -> None:
    """Take them; each process expects to be stopped."""
    runs.train(folder / "whole", model, rows, **SETTINGS)
    with pytest.raises(Interrupted, match=f"after step {STOP_AFTER} of"):
        runs.train(folder / "stopped", model, rows, reporters=[runs.Listener(stop)], **SETTINGS)
    runs.train(folder / "stopped", resume=True)


if __name__ == "__main__":
    three_runs(*map(Path, sys.argv[1:4]))
    leave_group()
    leave(0)
