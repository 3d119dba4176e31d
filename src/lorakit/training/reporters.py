"""Where events go besides the screen: metrics.jsonl always, trackers when asked. None may stop a run."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorakit.training.events import EvaluationEvent, Event, NoteEvent, Reporter, StepEvent

_logger = logging.getLogger(__name__)


class Reporters:
    """Passes each event to every reporter; one that fails is dropped with a line, and the run goes on."""

    def __init__(self, reporters: Iterable[Reporter]) -> None:
        self._reporters = list(reporters)

    def report(self, event: Event) -> None:
        """Pass on one event."""
        for reporter in list(self._reporters):
            try:
                reporter.report(event)
            except Exception as error:  # a tracker's own errors are of every kind; training is worth more
                self._reporters.remove(reporter)
                self.report(NoteEvent(f"{type(reporter).__name__} failed and is left out from now on: {error}"))

    def close(self) -> None:
        """Close every reporter."""
        for reporter in self._reporters:
            try:
                reporter.close()
            except Exception as error:
                _logger.warning("%s could not be closed: %s", type(reporter).__name__, error)


class MetricsFile:
    """Writes ``metrics.jsonl``: one line a step or evaluation; a resumed run cuts what lies behind its step.

    Args:
        path: The file.
        resumed_step: Step a run goes on after; None for a run that begins.
    """

    def __init__(self, path: Path, resumed_step: int | None = None) -> None:
        kept = [line for line in _lines(path) if resumed_step is not None and line.get("step", 0) <= resumed_step]
        aside = path.with_name(f".{path.name}.new")
        aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(aside, path)
        self._file = path.open("a", encoding="utf-8")

    def report(self, event: Event) -> None:
        """Write one event; notes are for the screen."""
        kind = {StepEvent: "step", EvaluationEvent: "evaluation"}.get(type(event))
        if kind is not None:
            # JSON has no NaN and no infinity.
            values = {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in _flat(asdict(event)).items()
            }
            self._file.write(json.dumps({"kind": kind, **values}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Trackers:
    """Sends numbers to TensorBoard, W&B or MLflow through Accelerate."""

    def __init__(self, accelerator: Any, project: str, settings: dict[str, Any]) -> None:
        self._accelerator = accelerator
        accelerator.init_trackers(project, config=settings)

    def report(self, event: Event) -> None:
        """Send the numbers of one event."""
        if isinstance(event, StepEvent):
            values = {"train/loss": event.loss, "train/learning_rate": event.learning_rate}
            self._accelerator.log({**values, "train/gradient_norm": event.gradient_norm}, step=event.step)
        elif isinstance(event, EvaluationEvent):
            details = {f"evaluation/{name}": value for name, value in event.details.items()}
            self._accelerator.log({"evaluation/loss": event.loss, **details}, step=event.step)

    def close(self) -> None:
        """Let the trackers write what they hold."""
        self._accelerator.end_training()


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in values.items() if key != "details"}, **values.get("details", {})}


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            # A killed run may leave half a line at the end.
            continue
    return found
