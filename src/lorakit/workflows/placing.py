"""Where a model computes, and in which dtype its weights are held when nothing trains."""

from __future__ import annotations

from lorakit.errors import LorakitError, nearest
from lorakit.families import Family

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Other names that a dtype may be given by."""


def check_place(device: str, dtype: str) -> None:
    """Raise LorakitError for a device or a dtype that no computer has; loads nothing."""
    for name, given, accepted in (("device", device, DEVICES), ("dtype", SHORT.get(dtype, dtype), DTYPES)):
        if given not in accepted:
            listed = f"{', '.join(accepted[:-1])} or {accepted[-1]}"
            raise LorakitError(f'{name} is "{given}"; must be {listed}. {nearest(given, accepted)}'.rstrip())


def check_range(dtype: str | None, *families: Family) -> None:
    """Raise LorakitError where a model is to compute, or to be stored, in a dtype that its activations outgrow."""
    outgrown = [family.model_type for family in families if not family.fp16]
    if dtype == "float16" and outgrown:
        raise LorakitError(
            f"dtype is float16, whose largest number activations of type {outgrown[0]} outgrow: scores would be "
            f"infinite or not a number. Use --dtype bfloat16 (as small) or float32."
        )


def place(device: str = "auto", dtype: str = "auto", *families: Family) -> tuple[str, str]:
    """Return the device and the dtype to load models with.

    Args:
        device: `auto` (the accelerator where there is one), `cpu`, `cuda` or `mps`.
        dtype: `auto` (bfloat16 on a GPU that has it, float32 elsewhere), `float32`, `bfloat16` or `float16`, or one of
            `SHORT`.
        *families: Of the models.

    Raises:
        LorakitError: No such device or dtype, this computer does not have the device, or a model outgrows the dtype.
    """
    check_place(device, dtype)
    dtype = SHORT.get(dtype, dtype)
    check_range(dtype, *families)
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(name for name, there in present.items() if there) if device == "auto" else device
    if not present[chosen]:
        raise LorakitError(f"this computer has no {chosen} device (as far as torch sees); use --device cpu or auto.")
    if dtype != "auto":
        return chosen, dtype
    return chosen, "bfloat16" if chosen == "cuda" and torch.cuda.is_bf16_supported() else "float32"
