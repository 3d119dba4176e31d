"""How text is written: settings of `lorakit generate`, `lorakit chat` and `lorakit.generate`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from lorakit.errors import LorakitError, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MOST_BEAMS = 64
"""Every beam holds a key-value cache of its own; beyond this the search only takes more memory."""

_REQUIREMENTS = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "list_type": "must be a list of texts",
    "string_type": "must be a text",
}
"""What pydantic found, in plain words; the bounds are its own."""


class DecodingSettings(BaseModel):
    """How the next token is chosen and where an answer ends.

    Temperature 0 takes the most probable token at each step. Options that narrow a draw (`top_k`, `top_p`, `min_p`,
    `num_samples`) are refused while nothing is drawn, and beams exclude drawing: an option never goes unused.

    Raises:
        LorakitError: A value is out of its range, or two options contradict each other; every fault is listed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    max_new_tokens: int = Field(default=256, ge=1)
    """Tokens an answer may have; an answer cut here reports `length`."""
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Divisor of the logits before the draw; 0 takes the most probable token, 1 draws from the model as it is."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw among the k most probable tokens."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw among the fewest tokens whose probabilities sum to p."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Draw among tokens at least this many times as probable as the most probable one."""
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100, allow_inf_nan=False)
    """Above 1, makes tokens of the prompt and the answer so far less probable; 1 leaves them alone; 0.01 to 100."""
    num_samples: int = Field(default=1, ge=1)
    """Answers drawn for each prompt."""
    num_beams: int = Field(default=1, ge=1, le=MOST_BEAMS)
    """Beams kept by beam search, at most 64; 1 is no search."""
    length_penalty: float | None = Field(default=None, allow_inf_nan=False)
    """Power of the length that divides a beam's score; above 0 favours long answers; left out: 1."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws; each answer has its own stream, so its neighbours do not change it."""
    stop: list[str] = Field(default_factory=list)
    """Texts that end an answer; the answer holds what stands before the first of them."""

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        return self.temperature > 0

    @model_validator(mode="wrap")
    @classmethod
    def _speak_plainly(cls, values: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            settings = build(values)
        except ValidationError as error:
            faults = [_plainly(fault, cls.model_fields) for fault in error.errors()]
        else:
            faults = _contradictions(settings)
        if faults:
            raise LorakitError("the decoding options do not work:\n" + "\n".join(f"  {fault}" for fault in faults))
        return settings


def _plainly(fault: ErrorDetails, known: Iterable[str]) -> str:
    """Return one fault of pydantic's as ``top_k is -1; must be at least 1.``"""
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{name} is no decoding option. {nearest(name, known)}".rstrip()
    requirement = _REQUIREMENTS.get(fault["type"], fault["msg"]).format(**fault.get("ctx", {}))
    return f"{name} is {fault['input']!r}; {requirement}."


def _contradictions(settings: DecodingSettings) -> list[str]:
    faults = []
    if settings.num_beams > 1:
        beside = {"temperature": settings.samples, "num_samples": settings.num_samples > 1}
        faults += [
            f"{name} is not used by beam search; leave it out, or leave num_beams at 1."
            for name, given in beside.items()
            if given
        ]
    elif settings.length_penalty is not None:
        faults.append("length_penalty is used by beam search alone; set num_beams to 2 or more, or leave it out.")
    if not settings.samples:
        narrowing = {
            "top_k": settings.top_k is not None,
            "top_p": settings.top_p is not None,
            "min_p": settings.min_p is not None,
            "num_samples": settings.num_samples > 1 and settings.num_beams == 1,
        }
        faults += [
            f"{name} has no effect while temperature is 0 (nothing is drawn); set temperature above 0, such as 1."
            for name, given in narrowing.items()
            if given
        ]
    if "" in settings.stop:
        faults.append("stop holds an empty text, which would end every answer at once; give at least one character.")
    return faults
