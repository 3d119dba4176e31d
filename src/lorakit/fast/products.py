"""Matrix products of a model that no longer learns, by the fastest kernel the processor offers.

Writing text is a matter of reading weights. In float32 and bfloat16 oneDNN reads them in a layout of its own, where a
short trial finds that faster. In int8 they are a quarter as large, and scores change a little: for good where that is
asked for, or for drafts alone, which the exact weights then check.
These doors are private to torch, so each is tried before it is used. The plain twin is `torch.nn.functional.linear`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Quantize = Literal["int8"]

_FASTER = 1.1
"""How many times as fast oneDNN has to be to be taken."""

_LAID_OUT_FOR = 16
"""Rows of the product that the layout is chosen for; it serves any number."""

_ROWS = 6
"""Fewer than four rows are filled up to so many: that kernel takes 0.8 of the time of the one for a single row."""

_Product = Callable[[Tensor], Tensor]


def take(model: nn.Module, quantize: Quantize | None = None) -> str:
    """Send the matrix products of `model` through faster kernels, where there are some.

    The layers' own weights are given up for those that the kernels read; names, shapes and dtypes stay.

    Args:
        model: On a CPU, in float32, or in bfloat16 without `quantize`; nothing in it learns any more.
        quantize: Hold weights in 8 bits, one scale an output feature.

    Returns:
        Which kernels are used now, for the screen; "" where nothing changed.

    Raises:
        RuntimeError: This build of torch cannot multiply in int8.
    """
    if quantize is None and not _onednn_is_faster(next(model.parameters()).dtype):
        return ""
    kernel = _ThroughOneDNN if quantize is None else _in_int8
    for module, weight_OI in _products(model):
        module.forward = kernel(weight_OI, module.bias)
        module.weight = nn.Parameter(torch.empty_like(module.weight, device="meta"), requires_grad=False)
    return "products through oneDNN" if quantize is None else "int8 products"


class Rounded:
    """A twin of every product with weights in 8 bits, which takes its place for as long as a draft is written.

    Args:
        model: On a CPU, in float32 or bfloat16; its products may have been sent through oneDNN.

    Raises:
        RuntimeError: This build of torch cannot multiply in int8.
    """

    def __init__(self, model: nn.Module) -> None:
        self._products = [
            (module, module.forward, _in_int8(weight_OI.float(), module.bias)) for module, weight_OI in _products(model)
        ]

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Within this block products are rounded."""
        for module, _, rounded in self._products:
            module.forward = rounded
        try:
            yield
        finally:
            for module, exact, _ in self._products:
                module.forward = exact


def _products(model: nn.Module) -> Iterator[tuple[Any, Tensor]]:
    """Yield each linear layer and its weight with output features first, shape (O, I)."""
    from transformers.pytorch_utils import Conv1D

    module: Any
    for module in model.modules():
        if type(module) not in (nn.Linear, Conv1D):
            continue
        if isinstance(module.forward, _ThroughOneDNN):
            yield module, module.forward.weight_OI
        else:
            weight = module.weight.detach()
            yield module, (weight if type(module) is nn.Linear else weight.t()).contiguous()


class _ThroughOneDNN:
    """A product whose weight lies as oneDNN reads it."""

    def __init__(self, weight_OI: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, _LAID_OUT_FOR)
        self._bias = bias

    @property
    def weight_OI(self) -> Tensor:
        """The weight as torch lays it out."""
        return self._packed.to_dense()

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[:-1].numel()
        if rows >= 4:
            return self._of(x)
        made_NO = self._of(functional.pad(x.reshape(rows, -1), (0, 0, 0, _ROWS - rows)))
        return made_NO[:rows].reshape(*x.shape[:-1], -1)

    def _of(self, x: Tensor) -> Tensor:
        return through_onednn(x, self._packed, self._bias)


def through_onednn(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return x W^T + b, shape (..., O) for (..., I), by oneDNN; the weight may lie as it does best there."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")
    return made


def _in_int8(weight_OI: Tensor, bias: Tensor | None) -> _Product:
    """Return the product with weights in 8 bits, symmetric a row, and inputs in 8 bits a call."""
    scales_O = weight_OI.abs().amax(dim=1).clamp(min=1e-12) / 127
    zeros_O = torch.zeros_like(scales_O, dtype=torch.int64)
    with warnings.catch_warnings():
        # torch means to drop tensors of this type some day; the product then takes another form.
        warnings.simplefilter("ignore")
        rounded = torch.quantize_per_channel(weight_OI, scales_O, zeros_O, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(rounded, None if bias is None else bias.float())

    def product(x: Tensor) -> Tensor:
        # Sums of products of 8 bits overflow on processors without the instructions made for them.
        made: Tensor = torch.ops.quantized.linear_dynamic(x.float(), packed, reduce_range=not has_vnni())
        return made.to(x.dtype)

    return product


def has_vnni() -> bool:
    """Whether this processor has the instructions that make products in 8 bits fast."""
    return bool(torch.cpu._is_vnni_supported())


def _onednn_is_faster(dtype: torch.dtype, features: int = 768, tokens: int = 16) -> bool:
    """Time a product of both libraries, a few milliseconds, by turns; False where oneDNN's door is not there."""
    x, weight_OI = torch.ones(tokens, features, dtype=dtype), torch.ones(4 * features, features, dtype=dtype)
    best = {"plain": float("inf"), "onednn": float("inf")}
    try:
        through = _ThroughOneDNN(weight_OI, None)
        for _ in range(8):
            for name, product in (("plain", lambda x: functional.linear(x, weight_OI)), ("onednn", through)):
                begun = time.perf_counter()
                product(x)
                best[name] = min(best[name], time.perf_counter() - begun)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return best["plain"] > _FASTER * best["onednn"]
