"""What lorakit takes of a DeepSpeed config, which Accelerate makes of its own or reads from a file: how ZeRO cuts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from lorakit.errors import LorakitError

_ZERO = "zero_optimization"
_TAKEN = (
    "stage",
    "overlap_comm",
    "contiguous_gradients",
    "reduce_scatter",
    "reduce_bucket_size",
    "allgather_partitions",
    "allgather_bucket_size",
    "sub_group_size",
    "stage3_prefetch_bucket_size",
    "stage3_param_persistence_threshold",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
)
"""Keys of the section: the stage, and what changes speed and memory alone."""
_OFFLOADED = ("offload_optimizer", "offload_param")
_SAVED = ("stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save")
"""How DeepSpeed would write a model, which it does not here."""
_DECIDED = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "fp16",
    "bf16",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "steps_per_print",
    "wall_clock_breakdown",
)
"""Other sections, in whose place the recipe stands."""
NOTE = "of DeepSpeed's config, zero_optimization is taken; batches, precision, clipping and optimizer are the recipe's"
"""For the screen."""


def zero_settings() -> dict[str, Any]:
    """Return DeepSpeed's section ``zero_optimization`` of what Accelerate was started with.

    Raises:
        LorakitError: DeepSpeed is not installed, the config cannot be read, or it asks for what lorakit does not do.
    """
    if find_spec("deepspeed") is None:
        raise LorakitError(
            "Accelerate's config asks for DeepSpeed, which is not installed here: pip install 'lorakit[deepspeed]'"
        )
    from accelerate.utils import DeepSpeedPlugin

    try:
        config = DeepSpeedPlugin().deepspeed_config
    except (ValueError, OSError) as error:
        raise LorakitError(f"Accelerate cannot read the DeepSpeed config that it was given: {error}") from error
    settings: Mapping[str, Any] = config[_ZERO]
    strange = [key for key, value in config.items() if key not in (_ZERO, *_DECIDED) and value not in ("auto", {})]
    strange += [f"{_ZERO}.{key}" for key in settings if key not in (*_TAKEN, *_OFFLOADED, *_SAVED)]
    if strange:
        raise LorakitError(f"DeepSpeed's config sets {', '.join(strange)}, which lorakit does not do. Leave it out.")
    for key in _OFFLOADED:
        device = (settings.get(key) or {}).get("device") or "none"
        if device != "none":
            raise LorakitError(
                f"Accelerate's config asks for DeepSpeed with {key} on {device}: weights and moments that wait in "
                "memory other than the GPU's are not supported. Set its device to none."
            )
    stage = settings.get("stage")
    if stage not in (1, 2, 3):
        raise LorakitError(f"Accelerate's config asks for DeepSpeed with ZeRO stage {stage}; must be 1, 2 or 3.")
    return {key: settings[key] for key in _TAKEN if settings.get(key, "auto") != "auto"}
