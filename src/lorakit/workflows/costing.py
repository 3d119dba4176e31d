"""What a change of an adapter costs: the loss on rows, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorakit.adapters.bundle import Target
from lorakit.data.settings import DataSettings
from lorakit.types import Objective, Row
from lorakit.workflows import evaluation_rows
from lorakit.workflows.comparing import Reading, subject_of
from lorakit.workflows.scoring import mean_loss

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Rows, and the objective that reads them."""

    rows: list[Row]
    objective: Objective
    notes: tuple[str, ...]

    def loss(self, target: Target, model: nn.Module) -> float:
        """Return the mean loss of a model on the rows, in nats."""
        return mean_loss(target, self.objective, model, self.rows)


def yardstick(target: Target, called: str, data: str | DataSettings) -> Yardstick:
    """Return what to measure with.

    Args:
        target: Whose objective reads the rows.
        called: What messages call it.
        data: File, folder or ``hf://`` name of rows, or settings whose `train` says where.

    Raises:
        DataError: The rows cannot be read, are of another format, or have labels that the target does not know.
    """
    settings = data if isinstance(data, DataSettings) else DataSettings(train=data)
    rows, format, notes = evaluation_rows.read(settings, target, called, 0)
    rows, told = evaluation_rows.drawn(rows, target, settings.rows, 0)
    objective = subject_of(called, target, Reading(rows, format, settings)).objective
    evaluation_rows.check_labels(rows, format, objective.head, called)
    rows, left_out = evaluation_rows.read_by_all([objective], rows)
    return Yardstick(rows, objective, (*notes, *told, *left_out))
