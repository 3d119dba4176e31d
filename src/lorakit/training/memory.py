"""How much memory a run needs, and how many tokens to compute at once: an estimate before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lorakit.families import width

_LIVE_PER_LAYER = 34
"""Activations of one block kept for the backward pass, in multiples of the hidden width (Korthikanti et al. 2022,
arXiv:2205.05198, equation 1: 34 s b h bytes in 16 bits; here counted in numbers, 17 of which are kept)."""


def gradients_and_moments(model: nn.Module) -> int:
    """Return the bytes of gradients and of AdamW's two moments: 12 for each weight that learns."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad) * (4 + 8)


def held(device: torch.device) -> int:
    """Return the bytes held now: on a CPU by the whole process, libraries and weights included."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    import psutil

    return int(psutil.Process().memory_info().rss)


def per_token(config: Mapping[str, Any], vocabulary: int, labelled_share: float, bytes_each: int) -> int:
    """Return the bytes of activations for one more token in a micro-batch.

    Args:
        config: config.json of the checkpoint.
        vocabulary: Rows of the output layer.
        labelled_share: Share of the tokens whose scores are computed, in (0, 1].
        bytes_each: Bytes of one activation: 4 in float32, 2 in bfloat16.
    """
    hidden = width(config) or 1024
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or config.get("num_layers") or 24)
    # Scores, their float32 copy, and the gradient of both.
    scores = vocabulary * 3 * 4 * labelled_share
    return int(hidden * layers * _LIVE_PER_LAYER / 2 * bytes_each + scores)


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
    """Return the memory at hand on `device`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
