"""The optimizer and the course of its learning rate, a pure function of the optimizer step."""

from __future__ import annotations

import math

import torch
from torch import nn

from lorakit.training.settings import AdafactorSettings, AdamWSettings, OptimSettings


def build(model: nn.Module, settings: OptimSettings, learning_rate: float) -> torch.optim.Optimizer:
    """Return an optimizer over the weights that learn, in two groups: matrices decay, the rest does not.

    Embeddings, biases and norms are left out of the decay: they are not matrix products.
    """
    embeddings = {
        id(weight) for module in model.modules() if isinstance(module, nn.Embedding) for weight in module.parameters()
    }
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    decayed = [weight for weight in learned if weight.ndim >= 2 and id(weight) not in embeddings]
    chosen = {id(weight) for weight in decayed}
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": [weight for weight in learned if id(weight) not in chosen], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if isinstance(settings, AdamWSettings):
        betas = (settings.beta1, settings.beta2)
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=settings.epsilon, fused=True)
    if isinstance(settings, AdafactorSettings):
        return torch.optim.Adafactor(groups, lr=learning_rate)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=settings.momentum)


def learning_rate_at(step: int, total: int, settings: OptimSettings, peak: float) -> float:
    """Return the learning rate of optimizer step `step`.

    Args:
        step: From 0 to `total` - 1.
        total: Optimizer steps of the whole run.
        settings: Schedule and share of the warm-up.
        peak: Highest learning rate.

    Returns:
        A line from near 0 to `peak` over the warm-up, then `peak` times 1 (constant), a line to 0 (linear) or
        (1 + cos(pi x)) / 2 with x from 0 to 1 (cosine; Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5).
    """
    warm = round(settings.warmup * total)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    x = (step - warm) / max(1, total - warm)
    if settings.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * x))
    return peak * (1 - x) if settings.schedule == "linear" else peak
