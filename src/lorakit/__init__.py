"""lorakit: fine-tune a pretrained GPT, BERT or T5 checkpoint, share a small adapter, write text with it.

Every command is one Python call with the same verb: ``lorakit.train(recipe)``, ``lorakit.generate(target, prompt)``.
The verbs are imported on first use, so that ``import lorakit`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "train": "lorakit.workflows.training",
    "generate": "lorakit.workflows.generating",
    "predict": "lorakit.workflows.predicting",
    "evaluate": "lorakit.workflows.evaluating",
    "merge": "lorakit.workflows.merging",
    "export": "lorakit.workflows.exporting",
    "new": "lorakit.workflows.creating",
    "info": "lorakit.workflows.describing",
    "check": "lorakit.workflows.checking",
    "pack": "lorakit.workflows.packing",
    "unpack": "lorakit.workflows.packing",
    "push": "lorakit.workflows.pushing",
    "resize": "lorakit.workflows.surgery",
    "extract": "lorakit.workflows.extracting",
    "combine": "lorakit.workflows.combining",
    "subtract": "lorakit.workflows.combining",
    "scale": "lorakit.workflows.combining",
    "diff": "lorakit.workflows.differing",
    "quantize": "lorakit.workflows.storing",
}


def __getattr__(name: str) -> Any:
    """Import a verb when it is first asked for (PEP 562)."""
    if name in _VERBS:
        return getattr(importlib.import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'lorakit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_VERBS]
