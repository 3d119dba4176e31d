"""What `evaluate` measures: a target, and what is set beside it, both made to answer the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit import objectives
from lorakit.adapters.bundle import Target, open_target
from lorakit.adapters.manifest import read_local
from lorakit.checkpoints import heads
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError, LorakitError
from lorakit.types import Format, Objective, Row
from lorakit.workflows import stored_recipe, tasks

if TYPE_CHECKING:
    from torch import nn

BASE = "base"
"""Word for the model that a target was trained on."""

_JUDGES = ("sequence_classification", "token_classification", "question_answering")
"""Heads that no pretraining gives a model."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The rows that models are to answer."""

    rows: Sequence[Row]
    """Canonical."""
    format: Format
    settings: DataSettings


@dataclass(frozen=True, slots=True)
class Subject:
    """A model about to be measured."""

    name: str
    target: Target
    objective: Objective
    notes: tuple[str, ...] = ()
    """What is to be said about it."""
    seed: int | None = None
    """Draws what a base lacks of the head it is given; None: measured with the head it has."""

    def load(self, device: str, dtype: str) -> tuple[nn.Module, bool]:
        """Return the model in eval mode, and whether its head is new."""
        if self.seed is None:
            return self.target.load(dtype, "sdpa", device, merge=True), False
        import torch

        base, head = self.target.base, self.objective.head
        # A training draws its new head in float32; in another dtype other weights would be drawn.
        drawn = dtype if heads.claims(base.config, head, base.family) else "float32"
        model, fresh = base.load_for(head, drawn, seed=self.seed)
        placed: nn.Module = model.to(device, getattr(torch, dtype))  # type: ignore[call-overload]
        return placed.eval().requires_grad_(False), bool(fresh)


def subject_of(name: str, target: Target, reading: Reading) -> Subject:
    """Return a target with the objective it was trained for, or that a base's own head speaks of.

    Raises:
        DataError: It cannot read rows of the length that is asked.
    """
    return _subject(name, target, reading, tasks.settings_of(target))


def beside(one: Subject, against: str, reading: Reading) -> Subject:
    """Return what to compare with.

    A base has the head that the training of `one` began with: what it lacks of it is drawn from that training's seed.

    Args:
        one: The target.
        against: ``base``, or another target.
        reading: The rows that both answer.

    Raises:
        LorakitError: The base is not known, or the other one learned something else.
    """
    if against == BASE:
        return _began(BASE, _base_of(one), one, reading)
    other = open_target(against)
    if _is_base_for(other, one.objective):
        return _began(against, other, one, reading)
    found = subject_of(against, other, reading)
    learned, other_learned = _learned(one.objective, found.objective)
    if learned != other_learned:
        raise LorakitError(
            f"{one.name} learned {learned} and {against} {other_learned}: no measure is of both. Evaluate them one "
            f"after the other."
        )
    return found


def _learned(*objectives: Objective) -> list[str]:
    """Return what each learned: of two classifications whether that is labels or scores."""
    if any(objective.name != "sequence_classification" for objective in objectives):
        return [objective.name for objective in objectives]
    return ["scores" if objective.head.problem == "regression" else "labels" for objective in objectives]


def _subject(name: str, target: Target, reading: Reading, task: Any, seed: int | None = None) -> Subject:
    limit, asked = target.base.max_positions, reading.settings.max_length
    if asked is not None and limit is not None and asked > limit:
        raise DataError(
            f"data.max_length is {asked:,}, and {target.base.identity} has {limit:,} positions. Give at most {limit:,}."
        )
    notes = list(target.notes)
    if getattr(task, "nsp", False) and len(reading.rows) < 2:
        task = task.model_copy(update={"nsp": False})
        notes.append("next sentences need two documents, and here is one: hidden words alone are measured")
    objective = tasks.objective_of(target, reading.format.name, asked, reading.settings.too_long, task)
    return Subject(name, target, objective, tuple(notes), seed)


def _began(name: str, base: Target, one: Subject, reading: Reading) -> Subject:
    """Return a base as the training of `one` would begin with it."""
    return _subject(name, base, reading, tasks.settings_of(one.target), stored_recipe.seed_of(one.target.folder))


def _is_base_for(target: Target, objective: Objective) -> bool:
    """Whether a whole model was pretrained alone, so that `objective` could begin with it."""
    own = tasks.settings_of(target).name
    whole = target.form in ("base", "full", "merged")
    fits = target.base.family.kind in objectives.KINDS[objective.name]
    return whole and own != objective.name and own not in _JUDGES and fits


def _base_of(subject: Subject) -> Target:
    """Return the model that a target was trained on."""
    target, manifest = subject.target, subject.target.manifest
    if target.form in ("lora", "changed"):
        base = target.base.original
        return replace(target, base=base, folder=base.folder, form="base", manifest=None, adapter=None, notes=[])
    missing = ""
    if manifest is not None and target.form != "base" and not target.base.identity.startswith("builtin:"):
        identity = manifest.base.identity
        known = read_local(target.folder).get("base") if identity.startswith("local:") else identity
        if known is not None and (known == identity or Path(known).is_dir()):
            return open_target(known, manifest.base.revision)
        missing = f", as far as is known here: {identity.removeprefix('local:')!r}, which it began from, is not at hand"
    raise LorakitError(
        f"{subject.name} is a base model itself{missing}. --against base compares an adapter or a run with what it was "
        f"trained on. Give another model to compare with, a folder, a built-in name or a Hub id: --against OTHER."
    )
