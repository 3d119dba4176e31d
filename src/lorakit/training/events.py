"""What a run tells while it goes; reporters listen, and none can stop it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One optimizer step was taken."""

    step: int
    """From 1."""
    total: int
    epoch: int
    """From 1."""
    loss: float
    """Mean loss per label of this step, nats."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    tokens_per_second: float
    """Real tokens, padding not counted, over the last steps."""
    seconds_left: float


@dataclass(frozen=True, slots=True)
class EvaluationEvent:
    """The evaluation rows were scored."""

    step: int
    loss: float
    """Mean loss per label, nats."""
    best_step: int
    best_loss: float
    details: dict[str, float] = field(default_factory=dict)
    """Loss of each term where there are several, and shares of hits in [0, 1] (``accuracy``), by name."""


@dataclass(frozen=True, slots=True)
class NoteEvent:
    """Something the user should know."""

    text: str
    routine: bool = False
    """Whether all is as it should be; not shown with `--quiet`."""


Event = StepEvent | EvaluationEvent | NoteEvent


class Reporter(Protocol):
    """Listens to a run."""

    def report(self, event: Event) -> None:
        """Take one event; must be quick."""

    def close(self) -> None:
        """Called once, at the end or on an error."""
