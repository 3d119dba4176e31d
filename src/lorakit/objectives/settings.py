"""Settings of the section `objective`: one model an objective, told apart by `name`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class CausalLMSettings(BaseModel):
    """Learn the next token (Radford et al. 2018, "Improving Language Understanding", equation 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    name: Literal["causal_lm"] = "causal_lm"
    train_on_prompt: bool = False
    """Whether prompt tokens are labels too; off: answers are learned, prompts are only read."""
    separator: str = "\n"
    """Text put between a prompt and its answer in `prompt_completion` rows; saved with the adapter."""


ObjectiveSettings = CausalLMSettings
