"""How much memory a run needs, and how many tokens to compute at once: estimated, measured, and made to fit."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorakit.checkpoints.added import is_sum
from lorakit.families import width
from lorakit.training import limits

_LIVE_PER_LAYER = 34
"""Activations of one block kept for the backward pass, in multiples of the hidden width (Korthikanti et al. 2022,
arXiv:2205.05198, equation 1: 34 s b h bytes in 16 bits; here counted in numbers, 17 of which are kept)."""


def gradients_and_moments(model: nn.Module) -> int:
    """Return the bytes of gradients and of AdamW's two moments: 12 for each weight that learns.

    A sum with an added matrix takes 4 more: it lies there until the backward pass.
    """
    learned = [(name, weight.numel()) for name, weight in model.named_parameters() if weight.requires_grad]
    return sum(count * (4 + 8 + 4 * is_sum(name)) for name, count in learned)


def to_come(model: nn.Module, cut: str, world: int) -> int:
    """Return the bytes that a model which was loaded adds on a device once it learns.

    Args:
        model: Where `cut`, not yet on the device.
        cut: What `world` processes share: nothing (""), moments (``zero-1``), gradients too (``zero-2``), or all
            (``zero-3``, ``fsdp2``).
        world: Number of processes.
    """
    changing = gradients_and_moments(model)
    if not cut:
        return changing
    slopes = 4 * sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if cut.startswith("zero"):
        # DeepSpeed steps on a float32 copy of its own, as large as the gradient.
        changing += slopes
    if cut == "zero-1":
        return weights(model) + slopes + (changing - slopes) // world
    if cut == "zero-2":
        return weights(model) + changing // world
    return (weights(model) + changing) // world


def weights(model: nn.Module) -> int:
    """Return the bytes of all weights, a tied one counted once."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def held(device: torch.device) -> int:
    """Return the bytes held now: on a CPU by the whole process, libraries and weights included."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    import psutil

    return int(psutil.Process().memory_info().rss)


def mark(device: torch.device) -> int:
    """Return `held`, and let `peak` begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # Linux alone; elsewhere `peak` takes what is held at its end.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return held(device)


def peak(device: torch.device) -> int:
    """Return the most bytes held since `mark`, counted as in `held`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return held(device)


def recomputes(model: nn.Module) -> bool:
    """Whether blocks of a model are computed again in the backward pass."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def recomputable(model: nn.Module) -> bool:
    """Whether `recompute` can be asked of a model, and has not been."""
    return bool(getattr(model, "supports_gradient_checkpointing", False)) and not recomputes(model)


def recompute(model: Any) -> None:
    """Keep only what enters each block, and compute its inside again in the backward pass (Chen et al. 2016,
    arXiv:1604.06174, section 3): no number changes."""
    # Without reentrance, gradients reach the adapters though the embeddings need none.
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def per_token(
    config: Mapping[str, Any], vocabulary: int, labelled_share: float, bytes_each: int, recomputed: bool = False
) -> int:
    """Return the bytes of activations for one more token in a micro-batch.

    Args:
        config: config.json of the checkpoint.
        vocabulary: Rows of the output layer.
        labelled_share: Share of the tokens whose scores are computed, in (0, 1].
        bytes_each: Bytes of one activation: 4 in float32, 2 in bfloat16.
        recomputed: Whether the insides of blocks are computed again (`recompute`); then those of one are held at once.
    """
    hidden = width(config) or 1024
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or config.get("num_layers") or 24)
    # Scores, their float32 copy, and the gradient of both.
    scores = vocabulary * 3 * 4 * labelled_share
    inside = _LIVE_PER_LAYER / 2
    kept = layers + inside if recomputed else layers * inside
    return int(hidden * kept * bytes_each + scores)


def budget(free: int, each: int, longest: int, step: int, device: torch.device) -> int:
    """Return how many tokens to compute at once.

    As many as fit into half of the free memory, but no more than a step holds, and on a CPU no more than keeps its
    caches useful; never fewer than the longest row.

    Args:
        free: Bytes at hand after weights and moments.
        each: Bytes of one more token (`per_token`).
        longest: Tokens of the longest row.
        step: Tokens of a step on this process.
        device: Where the model computes.
    """
    most = 2048 if device.type == "cpu" else 32768
    return max(longest, min(step, most, free // 2 // max(1, each)))


def free_bytes(device: torch.device) -> int:
    """Return the memory at hand on `device`; on a CPU within what its container allows."""
    if device.type == "cuda":
        # What torch keeps of memory that was freed is at hand, too.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(kept)
    import psutil

    available, allowed = int(psutil.virtual_memory().available), limits.room()
    return available if allowed is None else max(0, min(available, allowed))


def trim() -> None:
    """Hand memory that was freed back to the system: glibc keeps it in pieces, and the next model comes on top."""
    if sys.platform == "linux":
        # Of glibc alone; other C libraries have no such function.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
