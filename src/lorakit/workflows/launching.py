"""One process or many: what Accelerate was started with, and that it is what was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from lorakit.data.paths import STANDARD_INPUT, as_source
from lorakit.data.settings import DataSettings
from lorakit.errors import CheckpointError, DataError, LorakitError
from lorakit.recipe import Recipe
from lorakit.workflows.deepspeed_config import NOTE, zero_settings

if TYPE_CHECKING:
    from torch import nn

    from lorakit.families import Family
    from lorakit.training.precision import Precision

Result = TypeVar("Result")

_REFUSED = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM, which lorakit does not know",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config; lorakit cuts weights over all processes alike",
}
"""What `accelerate launch` sets for what its config asks for -> what is said about it."""
_REFUSED_OF_FSDP = {
    "FSDP_OFFLOAD_PARAMS": "fsdp_offload_params: weights that wait in the host's memory are not supported",
    "FSDP_ACTIVATION_CHECKPOINTING": "fsdp_activation_checkpointing: set train.gradient_checkpointing=true instead",
}
_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
_CONFIG = "examples/accelerate/fsdp2.yaml is a config that works."


class Spread(NamedTuple):
    """A model over the processes."""

    model: nn.Module
    """In whatever wrapper exchanges its gradients."""
    optimizer: Any
    states: Any
    """The optimizer that has the state dict which is saved."""


def accelerator_for(recipe: Recipe, folder: Path) -> Any:
    """Return the Accelerator of this process.

    Gradient accumulation and mixed precision are the loop's own: Accelerate's would divide the loss once more.

    Raises:
        LorakitError: Several processes were asked for and one was started, the device is not there, or Accelerate's
            config asks for what lorakit does not do.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, patch_environment

    _check_config()
    if shards() and recipe.optim.name == "adafactor":
        raise LorakitError(
            "optim.name is adafactor, whose means of whole rows and columns cannot be cut over processes, as "
            "Accelerate's config asks for (FSDP or DeepSpeed). Use adamw, or a config without them."
        )

    device = recipe.train.device
    if device == "cuda" and not torch.cuda.is_available():
        raise LorakitError("train.device is cuda, and torch finds no CUDA GPU here. Leave it out, or use cpu.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise LorakitError("train.device is mps, and torch finds no Apple GPU here. Leave it out, or use cpu.")
    _check_trackers(recipe)
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if expected > 1:
        _check_input(recipe.data)
    # Accelerate would have transformers cut a model while it is read, and an engine of its own end the steps.
    with patch_environment(ACCELERATE_USE_DEEPSPEED="false"):
        accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision="no",
            # Given as a number it would give way to what `accelerate launch` or the environment says.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            # The others wait while the first process writes and checks the result; torch would give it ten minutes.
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
            log_with=list(recipe.train.trackers) or None,
            project_dir=str(folder),
        )
    # `accelerate launch` that starts one plain process still names the address where the others would meet.
    alone = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ and "ACCELERATE_USE_CPU" in os.environ
    if accelerator.num_processes != expected or (alone and accelerator.num_processes == 1):
        asked = "several processes were" if alone else f"{expected} processes were"
        raise LorakitError(
            f"{asked} asked for, and {accelerator.num_processes} found each other. On CPUs start them with: "
            f"ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m lorakit train ..."
        )
    if shards() and accelerator.num_processes == 1:
        raise LorakitError(f"Accelerate's config asks for {cut_as()}, and one process was started: nothing can be cut.")
    return accelerator


def shards() -> bool:
    """Whether Accelerate was asked to cut what learns over the processes.

    Its own answer (`distributed_type`) would be no on processors, without a word.
    """
    return bool(cut_as())


def cut_as() -> str:
    """Return the name of how it is cut: ``fsdp2``, ``zero-1`` to ``zero-3``, or ""."""
    if _is_on(_DEEPSPEED):
        return f"zero-{zero_settings()['stage']}"
    return "fsdp2" if _is_on("ACCELERATE_USE_FSDP") else ""


def spread(model: nn.Module, family: Family, recipe: Recipe, precision: Precision, accelerator: Any) -> Spread:
    """Spread `model` over the processes, whole or in parts as Accelerate's config says, with an optimizer over it."""
    from lorakit.training import optim, sharding
    from lorakit.training.zero import Zero

    cut = cut_as()
    if cut == "fsdp2":
        sharding.shard(model, family, accelerator.device, accelerator.num_processes, _reshards())
    optimizer = optim.build(model, recipe.optim, recipe.learning_rate)
    if not cut:
        prepared, exchanging = accelerator.prepare(model, optimizer)
        return Spread(prepared, exchanging, optimizer)
    if cut == "fsdp2":
        return Spread(model, optimizer, optimizer)
    zero = Zero(model, optimizer, zero_settings(), recipe.optim.clip, precision, accelerator.device)
    return Spread(zero.engine, zero, zero)


def _reshards() -> bool:
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() not in ("0", "false", "no", "off")


def notes(accelerator: Any) -> list[str]:
    """Return a line for what Accelerate's config says and lorakit does in its own way."""
    told = []
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", ""):
        told.append(f"mixed_precision: {asked} of Accelerate's config is passed over; train.dtype decides")
    if shards():
        told.append(
            f"what learns is cut over {accelerator.num_processes} processes ({cut_as()}); no answers are written at "
            "the end, as none of them can compute by itself"
        )
    if _is_on(_DEEPSPEED):
        told.append(NOTE)
    return told


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


def _check_config() -> None:
    """Refuse what Accelerate's config can ask for and lorakit does not do: passed over, it would be missed."""
    if _is_on(_DEEPSPEED) and _is_on("ACCELERATE_USE_FSDP"):
        raise LorakitError("Accelerate's config asks for FSDP and DeepSpeed at once; leave one of them out.")
    for variable, what in _REFUSED.items():
        if _is_on(variable):
            raise LorakitError(f"Accelerate's config asks for {what}. {_CONFIG}")
    if not _is_on("ACCELERATE_USE_FSDP"):
        return
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise LorakitError(f"Accelerate's config asks for FSDP with fsdp_version: {version}; must be 2. {_CONFIG}")
    for variable, what in _REFUSED_OF_FSDP.items():
        if _is_on(variable):
            raise LorakitError(f"Accelerate's config asks for {what}. {_CONFIG}")
    # Else transformers would read the checkpoint on the first process alone, and leave the others without weights.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def _check_trackers(recipe: Recipe) -> None:
    """Refuse a tracker whose library is not installed, before hours of training that it would miss."""
    from importlib.util import find_spec

    for name in recipe.train.trackers:
        modules = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(find_spec(module) for module in modules):
            extra = "'lorakit[track]'" if name == "tensorboard" else name
            raise LorakitError(f"train.trackers names {name}, which is not installed here: pip install {extra}")


def _check_input(data: DataSettings) -> None:
    """Refuse rows of standard input where several processes would each get some bytes of it."""
    train = data.train if isinstance(data.train, list) else [data.train]
    held = [] if data.eval is None or isinstance(data.eval, float) else [data.eval]
    if any(as_source(source).path == STANDARD_INPUT for source in [*train, *held]):
        raise LorakitError("standard input cannot be read by several processes. Write the rows to a file.")


def leave_group() -> None:
    """Leave the group of processes, where there is one; a process that ends inside it may be killed by its threads."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def after_first(accelerator: Any, shared: bool, work: Callable[[], Result]) -> Result:
    """Return what `work` returns on this process: the first one works first, then the first of each machine, then all.

    What one keeps in files the next ones find there, on other machines where they share the disk: there two must not
    write at once, as each takes what the other writes for left behind by a killed process. Where one fails the next
    ones begin all the same, and fail alike. Where nothing is `shared` through files, all begin at once.
    """
    if not shared or accelerator.num_processes == 1:
        return work()
    before = 0 if accelerator.is_main_process else 1 if accelerator.is_local_main_process else 2
    for _ in range(before):
        accelerator.wait_for_everyone()
    try:
        return work()
    finally:
        for _ in range(2 - before):
            accelerator.wait_for_everyone()


def by_first(accelerator: Any, work: Callable[[], Result]) -> Result:
    """Return on every process what `work` returns on the first one, or raise on every process what it raises there."""
    if accelerator is None or accelerator.num_processes == 1:
        return work()
    made, error = None, None
    if accelerator.is_main_process:
        try:
            made = work()
        except (CheckpointError, DataError) as raised:
            error = raised
    result, failure = from_first(accelerator, (made, error))
    if failure is not None:
        raise failure
    return cast(Result, result)


def from_first(accelerator: Any, value: Any) -> Any:
    """Return the first process's `value` on every process."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def from_each(accelerator: Any, value: Result) -> list[Result]:
    """Return the values of all processes, by their numbers, on every process; those of one where it is None."""
    if accelerator is None or accelerator.num_processes == 1:
        return [value]
    from accelerate.utils import gather_object

    gathered: list[Result] = gather_object([value])
    return gathered
