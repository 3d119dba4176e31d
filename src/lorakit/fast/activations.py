"""GELU as one kernel where transformers computes it step by step and keeps every step for the backward pass.

The tanh form of GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2), 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715
x^3))), is what GPT-2, Phi, gated T5 and ALBERT use. Its plain twin is transformers' `NewGELUActivation`.
"""

from __future__ import annotations

from torch import nn


def fuse(model: nn.Module) -> int:
    """Put torch's kernel in place of every stepwise GELU of `model`; return how many there were.

    An activation has no weights, so that names and files stay the same.
    """
    from transformers.activations import NewGELUActivation

    found = [
        (module, name)
        for module in model.modules()
        for name, part in module.named_children()
        if type(part) is NewGELUActivation
    ]
    for module, name in found:
        setattr(module, name, nn.GELU(approximate="tanh"))
    return len(found)
