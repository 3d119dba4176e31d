"""The end of a run whose base was in 8 or 4 bits: read back as it was trained, and measured over the base as it is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from lorakit.adapters.bundle import Target
from lorakit.checkpoints.rounded import Width, round_base
from lorakit.fast.settings import SpeedSettings
from lorakit.training import memory
from lorakit.training.evaluation import evaluate
from lorakit.training.precision import Precision
from lorakit.training.run import Run
from lorakit.workflows.building import Built, quicken

_SPARE = 1.2
"""How many times a base in float32 has to fit into free memory to be loaded beside a run."""


def as_trained(target: Target, width: Width | None, attention: str, device: torch.device) -> nn.Module:
    """Return the model of a bundle as it learned, in eval mode; on the processor, unless its base is rounded.

    Args:
        target: The bundle.
        width: How its base was rounded; None: not at all.
        attention: Name of the attention function.
        device: Where it will compute.
    """
    model = target.load("float32", attention)
    if width is None:
        return model
    round_base(model, width, device)
    return model.to(device)


def writing(target: Target, width: Width | None, precision: Precision, device: torch.device) -> nn.Module:
    """Return the model of a bundle as it writes: pairs are folded into a base that is not rounded.

    Args:
        target: The bundle.
        width: How its base was rounded; None: not at all.
        precision: It was trained in; on a GPU it writes in it too, as other commands do there.
        device: Where it will compute.
    """
    if width is not None:
        return as_trained(target, width, "sdpa", device)
    return target.load(precision if device.type == "cuda" else "float32", "sdpa", str(device), merge=True)


def loss_as_is(target: Target, speed: SpeedSettings, built: Built, run: Run) -> float | None:
    """Return the evaluation loss in nats of an adapter over the base as it is; None where that does not fit.

    Every other command computes so, and PEFT does.
    """
    device = run.accelerator.device
    needed = _SPARE * built.base_parameters * 4
    if min(memory.free_bytes(place) for place in (device, torch.device("cpu"))) < needed:
        return None
    model = target.load("float32", built.attention)
    quicken(model, speed, built.precision, built.packed, device)
    return evaluate(replace(run, model=model, frontier=None), run.evaluation).loss
