"""A frozen base in 8 or 4 bits: the weights of its matrix products are kept rounded, and widened for each use.

The plain twin is the base as it is. Products are those of the widened weights, in the dtype that is computed in, so
that what learns beside them sees nothing but other constants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lorakit.errors import LorakitError

Width = Literal["int8", "nf4"]


def check_installed(width: Width | None) -> None:
    """Raise LorakitError where a library is missing that rounds so; loads nothing heavy where none is needed."""
    if width != "nf4":
        return
    try:
        _bitsandbytes()
    except ImportError as problem:
        raise LorakitError(
            f"method.quantize_base: nf4 needs bitsandbytes ({problem}): pip install 'lorakit[quantize]'. int8 needs "
            "nothing more."
        ) from problem


def round_base(model: nn.Module, width: Width, device: torch.device) -> int:
    """Put rounded weights in place of the frozen matrix products inside the blocks of `model`; return how many.

    Embeddings, output layers tied to them or not, poolers, heads, norms, biases and whatever learns stay as they are.

    Args:
        model: With its adapters, on the CPU; rounded matrices are moved to `device` one by one, the rest is not.
        width: ``int8`` or ``nf4`` (`Rounded`).
        device: Where the model will compute.
    """
    from transformers.pytorch_utils import Conv1D

    found: dict[tuple[nn.Module, str], Any] = {
        (parent, name): part
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList)
        for parent in stack.modules()
        for name, part in parent.named_children()
        # PEFT keeps its pairs in dictionaries.
        if type(part) in (nn.Linear, Conv1D) and not isinstance(parent, nn.ModuleDict) and not _learns(part)
    }
    for (parent, name), part in found.items():
        turned = type(part) is Conv1D
        setattr(parent, name, Rounded(part.weight.t() if turned else part.weight, part.bias, width, device))
    return len(found)


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


class Rounded(nn.Module):
    """A matrix product whose weight is rounded.

    ``int8``: the nearest of 255 multiples of the largest value of each row / 127 (Dettmers et al. 2022,
    arXiv:2208.07339, section 2.1, of the weights alone). ``nf4``: the nearest of 16 quantiles of a normal distribution
    in blocks of 64, the scales themselves in 8 bits (Dettmers et al. 2023, arXiv:2305.14314, section 3), through
    bitsandbytes.

    Args:
        weight_OI: To be rounded, shape (O, I), floating; a GPT-2 Conv1D turned.
        bias_O: Kept as it is, shape (O,); None for none.
        width: How weights are rounded.
        device: Where they are rounded and kept.
    """

    def __init__(self, weight_OI: Tensor, bias_O: nn.Parameter | None, width: Width, device: torch.device) -> None:
        super().__init__()
        codes, self._widened = _WIDTHS[width](weight_OI.detach().to(device).contiguous())
        # T5 casts what it multiplies to the dtype of this weight, unless that is int8.
        self.weight = nn.Parameter(codes.view(torch.int8), requires_grad=False)
        self.bias = bias_O

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b, shape (..., O) for (..., I)."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        product: Tensor = _Product.apply(x.to(dtype), self)
        return product

    def widened(self, dtype: torch.dtype) -> Tensor:
        """Return the weight that the products are taken with, shape (O, I)."""
        return self._widened(self.weight).to(dtype)


class _Product(torch.autograd.Function):
    """A product in which nothing learns: backward needs neither its input nor the widened weight kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Rounded) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.widened(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        return above @ ctx.layer.widened(above.dtype), None


_Widened = Callable[[Tensor], Tensor]


def _int8(weight_OI: Tensor) -> tuple[Tensor, _Widened]:
    scales_O1 = weight_OI.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (weight_OI / scales_O1).round().to(torch.int8), lambda codes_OI: codes_OI * scales_O1


def _nf4(weight_OI: Tensor) -> tuple[Tensor, _Widened]:
    blocks = _bitsandbytes().functional
    codes, state = blocks.quantize_4bit(weight_OI, quant_type="nf4", compress_statistics=True)
    return codes, lambda kept: blocks.dequantize_4bit(kept.data.view(torch.uint8), state)


def _bitsandbytes() -> Any:
    # It says at import that a kernel for single rows is missing, which is not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


_WIDTHS: dict[Width, Callable[[Tensor], tuple[Tensor, _Widened]]] = {"int8": _int8, "nf4": _nf4}
