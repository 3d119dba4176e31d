"""Products of layers that do not learn, in float32, through oneDNN where torch's own library takes a slow way.

torch multiplies float32 by MKL, which uses AVX-512 on Intel's processors alone; oneDNN uses it on AMD's too. The plain
twin is each layer's own forward.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lorakit.fast.products import through_onednn
from lorakit.fast.shapes import GRAIN


def take(model: nn.Module) -> int:
    """Send products of the frozen layers of `model` through oneDNN where that is the faster way; return of how many.

    Names, weights and what is wrapped around them stay. The choice depends on the processor and on torch alone, never
    on a clock: the two ways round differently, and a run that is resumed has to go on by its own.

    Args:
        model: With its adapters; of its weights those learn that require a gradient.
    """
    from transformers.pytorch_utils import Conv1D

    if not _is_faster():
        return 0
    found = [layer for layer in model.modules() if type(layer) in (nn.Linear, Conv1D) and _fits(layer)]
    for layer in found:
        layer.forward = _Through(layer)
    return len(found)


def product(layer: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return what multiplies by the weight of a linear layer, without gradients: the way that `layer` itself takes."""
    return through_onednn if isinstance(layer.forward, _Through) else functional.linear


def _is_faster() -> bool:
    """Whether MKL would multiply by its slow way on this processor, and this torch has the door to oneDNN."""
    try:
        processor = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    slow = "AuthenticAMD" in processor and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return slow and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _fits(layer: nn.Module) -> bool:
    return all(
        weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.requires_grad
        for weight in layer.parameters()
    )


class _Through:
    """What is called in place of a layer's forward."""

    def __init__(self, layer: nn.Module) -> None:
        # The layer holds this; if this held the layer too, neither would be let go until cycles are searched for.
        self._layer = weakref.ref(layer)

    def __deepcopy__(self, copied: dict[int, Any]) -> _Through:
        # A copy of the layer multiplies by weights of its own.
        return _Through(copied[id(self._layer())])

    def __call__(self, x: Tensor) -> Tensor:
        # Weights are looked up anew each time: where processes hold parts of them, they are others.
        layer: Any = self._layer()
        # oneDNN keeps a kernel for each number of rows, so that few have to occur (`fast/shapes.py`).
        if not _fits(layer) or x.dtype != torch.float32 or x.shape[:-1].numel() % GRAIN:
            plain: Tensor = type(layer).forward(layer, x)
            return plain
        # GPT-2's Conv1D holds (I, O).
        weight_OI = layer.weight if isinstance(layer, nn.Linear) else layer.weight.t()
        made: Tensor = _Product.apply(x, weight_OI, layer.bias)
        return made


class _Product(torch.autograd.Function):
    """y = W x + b where neither W nor b learns: the slope in x is that in y times W, and no input is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight_OI)
        return through_onednn(x, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        (weight_OI,) = ctx.saved_tensors
        return through_onednn(above, weight_OI.t(), None), None, None
