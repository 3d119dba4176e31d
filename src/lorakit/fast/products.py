"""Matrix products of a model that no longer learns, by the fastest kernel the processor offers.

In float32 the default library takes a slow path on some processors, where oneDNN computes the same products faster. In
int8 weights are a quarter as large, and writing text is a matter of reading weights: scores change a little.
Both doors are private to torch, so each is tried before it is used. The plain twin is `torch.nn.functional.linear`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Quantize = Literal["int8"]

_FASTER = 1.1
"""How many times as fast oneDNN has to be to be taken."""


def take(model: nn.Module, quantize: Quantize | None = None) -> str:
    """Send the matrix products of `model` through faster kernels, where there are some.

    Args:
        model: On a CPU, in float32; nothing in it learns any more.
        quantize: Hold weights in 8 bits, one scale an output feature.

    Returns:
        Which kernels are used now, for the screen; "" where nothing changed.

    Raises:
        RuntimeError: This build of torch cannot multiply in int8.
    """
    if quantize is not None:
        for module, weight_OI in _products(model):
            module.forward = _in_int8(weight_OI, module.bias)
        return "int8 products"
    if not _onednn_is_faster():
        return ""
    for module, weight_OI in _products(model):
        # The layout that oneDNN reads without turning it; a Conv1D keeps its name and shape.
        if not weight_OI.is_contiguous():
            weight_OI = weight_OI.contiguous()
            module.weight.data = weight_OI.t()
        module.forward = _through_onednn(weight_OI, module.bias)
    return "products through oneDNN"


def _products(model: nn.Module) -> Iterator[tuple[Any, Tensor]]:
    """Yield each linear layer and its weight with output features first, shape (O, I)."""
    from transformers.pytorch_utils import Conv1D

    module: Any
    for module in model.modules():
        if type(module) is nn.Linear:
            yield module, module.weight.detach()
        elif type(module) is Conv1D:
            yield module, module.weight.detach().t()


def _through_onednn(weight_OI: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    def product(x: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias, "none", [], "")
        return made

    return product


def _in_int8(weight_OI: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return the product with weights in 8 bits, symmetric a row, and inputs in 8 bits a call."""
    scales_O = weight_OI.abs().amax(dim=1).clamp(min=1e-12) / 127
    zeros_O = torch.zeros_like(scales_O, dtype=torch.int64)
    with warnings.catch_warnings():
        # torch means to drop tensors of this type some day; the product then takes another form.
        warnings.simplefilter("ignore")
        rounded = torch.quantize_per_channel(weight_OI.contiguous(), scales_O, zeros_O, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def product(x: Tensor) -> Tensor:
        # Sums of products of 8 bits overflow on processors without the instructions made for them.
        made: Tensor = torch.ops.quantized.linear_dynamic(x, packed, reduce_range=not _has_vnni())
        return made

    return product


def _has_vnni() -> bool:
    return bool(torch.cpu._is_vnni_supported())


def _onednn_is_faster(features: int = 768, tokens: int = 16) -> bool:
    """Time a product of both libraries, a few milliseconds, by turns; False where oneDNN's door is not there."""
    x, weight_OI = torch.ones(tokens, features), torch.ones(4 * features, features)
    through = _through_onednn(weight_OI, None)
    best = {"plain": float("inf"), "onednn": float("inf")}
    try:
        for _ in range(8):
            for name, product in (("plain", lambda x: functional.linear(x, weight_OI)), ("onednn", through)):
                begun = time.perf_counter()
                product(x)
                best[name] = min(best[name], time.perf_counter() - begun)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return best["plain"] > _FASTER * best["onednn"]
