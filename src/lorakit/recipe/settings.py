"""`Recipe`, composed from the settings of the parts that read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from lorakit.checkpoints.settings import ModelSettings
from lorakit.data.settings import DataSettings
from lorakit.fast.settings import SpeedSettings
from lorakit.methods.settings import LoraSettings, MethodSettings, default_learning_rate
from lorakit.objectives.settings import SETTINGS, ObjectiveSettings
from lorakit.training.settings import AdamWSettings, OptimSettings, TrainSettings

WORDS = {"model": "name", "data": "train", "objective": "name", "method": "name", "optim": "name"}
"""Section -> the key that a plain word in its place stands for."""

DEFAULT_NAMES = {"method": "lora", "optim": "adamw"}
"""Section -> the member that is meant where a mapping names none."""


class Recipe(BaseModel):
    """One fine-tuning run. Only what differs from the defaults needs to be written."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    model: ModelSettings
    """Which checkpoint to start from; a plain word is its `name`."""
    data: DataSettings
    """Which rows to learn; a plain word is the training file."""
    objective: ObjectiveSettings | None = None
    """What is learned; a plain word is its `name`; left out: recognised from the rows."""
    method: MethodSettings = LoraSettings()
    """Which weights learn; a plain word is its `name`."""
    optim: OptimSettings = AdamWSettings()
    """How a step is taken; a plain word is its `name`."""
    train: TrainSettings = TrainSettings()
    """How long, in which steps, and on what it is trained."""
    speed: SpeedSettings = SpeedSettings()
    """Which fast paths may be taken."""

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, values: Any) -> Any:
        return spread(values) if isinstance(values, Mapping) else values

    @property
    def learning_rate(self) -> float:
        """Highest learning rate of the run: `optim.learning_rate`, or the default of method and objective."""
        given = self.optim.learning_rate
        objective = self.objective.name if self.objective is not None else None
        return given if given is not None else default_learning_rate(self.method.name, objective)[0]


def spread(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with each plain word put under its key, and each nameless section named.

    ``{"method": "full"}`` becomes ``{"method": {"name": "full"}}``, and ``{"method": {"rank": 4}}`` becomes
    ``{"method": {"name": "lora", "rank": 4}}``. What is no plain word and no mapping stays, for the check to refuse.
    """
    result = dict(values)
    for section, key in WORDS.items():
        if isinstance(result.get(section), str | int | float):
            result[section] = {key: result[section]}
    for section, name in DEFAULT_NAMES.items():
        if isinstance(result.get(section), dict):
            result[section] = {"name": name, **result[section]}
    if isinstance(result.get("objective"), dict) and "name" not in result["objective"]:
        result["objective"] = {"name": _objective_with(result["objective"]), **result["objective"]}
    return result


def _objective_with(keys: Mapping[str, Any]) -> str:
    """Return the first objective that has all these keys, so that `objective: {nsp: true}` needs no name."""
    fitting = [model for model in SETTINGS if set(keys) <= set(model.model_fields)]
    return str((fitting or SETTINGS)[0].model_fields["name"].default)
