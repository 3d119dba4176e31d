"""WHAT is learned, a file each."""

from __future__ import annotations

import importlib
from typing import Any

OBJECTIVES = {"causal_lm": "lorakit.objectives.causal_lm:CausalLM"}
"""Name in a recipe -> module and class, imported on use."""

FOR_FORMAT = {"text": "causal_lm", "prompt_completion": "causal_lm", "chat": "causal_lm"}
"""Format of the rows -> objective chosen for a decoder when the recipe names none."""


def load(name: str) -> Any:
    """Import the class of an objective."""
    module, _, class_name = OBJECTIVES[name].partition(":")
    return getattr(importlib.import_module(module), class_name)
