"""WHICH weights learn, a file each: `apply(model, settings, family, head, fresh, new_rows) -> (model, Trainable)`.

`fresh` names the weights that the checkpoint did not bring, such as a new classifier: they start at random, so that
every method trains them. `new_rows` are the rows of tokens that the vocabulary lacked.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

METHODS = {
    "full": "lorakit.methods.full:apply",
    "freeze": "lorakit.methods.freeze:apply",
    "head": "lorakit.methods.head:apply",
    "lora": "lorakit.methods.lora:apply",
    "delta": "lorakit.methods.delta:apply",
}
"""Name in a recipe -> module and function, imported on use."""

FORMS: dict[str, Literal["full", "changed", "lora"]] = {
    "full": "full",
    "freeze": "changed",
    "head": "changed",
    "lora": "lora",
    "delta": "changed",
}
"""Name of a method -> the form in which its result is saved (`adapters/manifest.py`)."""


def load(name: str) -> Any:
    """Import the function of a method."""
    module, _, function = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), function)
