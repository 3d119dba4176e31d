"""One answer to one prompt, as `generate` gives it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from lorakit.workflows.prompt_text import Prompt

if TYPE_CHECKING:
    from lorakit.generation.answers import FinishReason, Generation, Step


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer."""

    prompt: Prompt
    """As it was given."""
    sample: int
    """Number of the answer among those to the same prompt, from 0."""
    text: str
    """The answer: no prompt, no end-of-sequence token, no stop text."""
    ids: tuple[int, ...]
    """Its token ids, the end-of-sequence token included."""
    finish_reason: FinishReason
    """``eos``, ``stop`` (a stop text), ``length`` (max_new_tokens) or ``context`` (the model's last position)."""
    log_probability: float
    """Sum over `ids` of the natural log-probability by the model."""
    steps: tuple[Step, ...] = ()
    """Each step with its candidates, where steps were asked for."""

    @classmethod
    def of(cls, prompt: Prompt, answer: Generation) -> Self:
        """Join an answer with the prompt it answers."""
        return cls(
            prompt,
            answer.sample,
            answer.text,
            answer.ids,
            answer.finish_reason,
            answer.log_probability,
            answer.steps,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` and `--output` write of an answer; `tokens` is the number of ids."""
        return {
            "text": self.text,
            "tokens": len(self.ids),
            "finish_reason": self.finish_reason,
            "log_probability": self.log_probability,
        }
