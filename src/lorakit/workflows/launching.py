"""One process or many: what Accelerate was started with, and that it is what was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lorakit.errors import LorakitError
from lorakit.recipe import Recipe

Result = TypeVar("Result")


def accelerator_for(recipe: Recipe, folder: Path) -> Any:
    """Return the Accelerator of this process.

    Gradient accumulation and mixed precision are the loop's own: Accelerate's would divide the loss once more.

    Raises:
        LorakitError: Several processes were asked for and one was started, or the device is not there.
    """
    import torch
    from accelerate import Accelerator

    device = recipe.train.device
    if device == "cuda" and not torch.cuda.is_available():
        raise LorakitError("train.device is cuda, and torch finds no CUDA GPU here. Leave it out, or use cpu.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise LorakitError("train.device is mps, and torch finds no Apple GPU here. Leave it out, or use cpu.")
    _check_trackers(recipe)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision="no",
        gradient_accumulation_steps=1,
        log_with=list(recipe.train.trackers) or None,
        project_dir=str(folder),
    )
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    # `accelerate launch` that starts one plain process still names the address where the others would meet.
    alone = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ and "ACCELERATE_USE_CPU" in os.environ
    if accelerator.num_processes != expected or (alone and accelerator.num_processes == 1):
        asked = "several processes were" if alone else f"{expected} processes were"
        raise LorakitError(
            f"{asked} asked for, and {accelerator.num_processes} found each other. On CPUs start them with: "
            f"ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m lorakit train ..."
        )
    return accelerator


def _check_trackers(recipe: Recipe) -> None:
    """Refuse a tracker whose library is not installed, before hours of training that it would miss."""
    from importlib.util import find_spec

    for name in recipe.train.trackers:
        modules = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(find_spec(module) for module in modules):
            extra = "'lorakit[track]'" if name == "tensorboard" else name
            raise LorakitError(f"train.trackers names {name}, which is not installed here: pip install {extra}")


def leave_group() -> None:
    """Leave the group of processes, where there is one; a process that ends inside it may be killed by its threads."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def after_first(accelerator: Any, shared: bool, work: Callable[[], Result]) -> Result:
    """Return what `work` returns on this process; on each machine the first one works before the others begin.

    What the first one keeps in files the others find there. Where it fails they begin all the same, and fail alike.
    Where nothing is `shared` through files, all begin at once.
    """
    if not shared or accelerator.num_processes == 1:
        return work()
    if not accelerator.is_local_main_process:
        accelerator.wait_for_everyone()
        return work()
    try:
        return work()
    finally:
        accelerator.wait_for_everyone()


def from_first(accelerator: Any, value: Any) -> Any:
    """Return the first process's `value` on every process."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
