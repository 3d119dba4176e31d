"""Scores over the vocabulary at labelled positions only: prompt tokens never meet the largest matrix of the model.

A hook selects hidden states right before the output layer, so that the model's own scaling, bias and soft-capping
still apply to what is left. The plain twin computes all logits and selects afterwards.

Where the output layer is the last thing a model does, its loss is taken a few positions at a time, so that the scores
of a long step are never held together. The plain twin is the cross-entropy of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from lorakit.checkpoints.finding import quiet
from lorakit.fast import frozen
from lorakit.fast.shapes import GRAIN

IGNORED = -100
"""Target of a position that is not counted."""
_AT_ONCE = {"cpu": 2**21, "cuda": 2**27}
"""Scores held at once. Measured with GPT-2's vocabulary and 2,048 positions in bfloat16: the process grows by 250 MB in
place of 1,300, in 0.8 of the time; in float32 the time is the same (benchmarks/chunked_loss.py)."""
_FEWEST = 2 * GRAIN
"""Positions of a part at least: half as many take a sixth more time in float32 (the same script)."""

_last: WeakSet[nn.Module] = WeakSet()
"""Output layers that `prove_last` has found to end their model."""


@contextmanager
def labelled_only(model: nn.Module, positions_L: Tensor) -> Iterator[None]:
    """Within this block the output layer sees the hidden states of `positions_L` alone, as one row.

    Args:
        model: A transformers model, also inside PEFT's or DDP's wrapper.
        positions_L: Flat indices over B * T, shape (L,), int64.

    Yields:
        Nothing; the model's `logits` have shape (1, L, V) meanwhile.
    """

    def select(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD = arguments[0]
        return (hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).index_select(0, positions_L)[None], *arguments[1:])

    handle = output_layer(model).register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def output_layer(model: Any) -> nn.Module:
    """Return the layer that scores the vocabulary, through any wrapper."""
    while not hasattr(model, "get_output_embeddings"):
        model = model.module
    return cast(nn.Module, model.get_output_embeddings())


def scores_words(model: Any) -> bool:
    """Whether a model has a layer that scores the vocabulary; not so where it scores labels or places."""
    return getattr(model, "get_output_embeddings", lambda: None)() is not None


def prove_last(model: Any) -> bool:
    """Find out whether the scores of `model` are what its output layer returns; then `loss_in_parts` may take them.

    Models that bound or scale their scores (Gemma 2, Cohere), and layers that something was put into, keep the plain
    way.

    Args:
        model: In the state in which it will learn; its random numbers stay as they are.
    """
    layer = output_layer(model) if scores_words(model) else None
    if type(layer) is not nn.Linear:
        return False
    seen: list[Tensor] = []
    ids_1T = torch.zeros(1, 2, dtype=torch.long, device=layer.weight.device)
    inputs = {"input_ids": ids_1T, "use_cache": False}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids_1T
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        with quiet(), torch.no_grad(), torch.random.fork_rng(devices=[ids_1T.device] if ids_1T.is_cuda else []):
            output = model(**inputs)
    except (TypeError, ValueError, RuntimeError):
        return False
    finally:
        handle.remove()
    scores = getattr(output, "logits", None)
    if len(seen) != 1 or scores is None or scores.data_ptr() != seen[0].data_ptr():
        return False
    _last.add(layer)
    return True


def keep_together(model: Any) -> None:
    """Have `scored_in_parts` say no from now on: where weights are spread over processes, the one that scores words is
    whole inside the model's own forward pass alone."""
    if scores_words(model):
        _last.discard(output_layer(model))


def scored_in_parts(model: nn.Module, positions: int) -> bool:
    """Whether the loss of so many labelled positions is taken in parts: where they are more than one part."""
    inner: Any = model.module if isinstance(model, DistributedDataParallel) else model
    if not hasattr(inner, "get_output_embeddings"):
        return False
    layer = inner.get_output_embeddings()
    return layer in _last and positions > _rows(layer)


@contextmanager
def labelled_states(model: nn.Module, positions_L: Tensor) -> Iterator[list[Tensor]]:
    """Within this block the output layer scores nothing, and the states of `positions_L` are put into a list.

    Args:
        model: `scored_in_parts`.
        positions_L: Flat indices over B * T, shape (L,), int64.

    Yields:
        A list that holds the states, shape (L, D), once a forward pass is over.
    """
    layer: Any = output_layer(model)
    kept: list[Tensor] = []

    def keep(hidden_BTD: Tensor) -> Tensor:
        kept.append(hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).index_select(0, positions_L))
        return hidden_BTD.new_empty(1, 0, len(layer.weight))

    own = vars(layer).get("forward")
    layer.forward = keep
    try:
        yield kept
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own


def loss_in_parts(model: nn.Module, hidden_LD: Tensor, targets_L: Tensor) -> Tensor:
    """Return the cross-entropy in nats, summed over labelled positions; shape (), float32.

    Args:
        model: `scored_in_parts`.
        hidden_LD: States before the output layer; L rounded up by `fast/shapes.py`.
        targets_L: Ids to be predicted, int64; shorter than `hidden_LD` by what was rounded up.
    """
    layer: Any = output_layer(model)
    targets_L = functional.pad(targets_L, (0, len(hidden_LD) - len(targets_L)), value=IGNORED)
    product = frozen.product(layer)
    return cast(Tensor, _LossInParts.apply(hidden_LD, layer.weight, layer.bias, targets_L, _rows(layer), product))


def _rows(layer: Any) -> int:
    """Return the positions of one part, a multiple of `GRAIN`."""
    most = _AT_ONCE.get(layer.weight.device.type, _AT_ONCE["cpu"]) // layer.weight.shape[0]
    return max(_FEWEST, most // GRAIN * GRAIN)


class _LossInParts(torch.autograd.Function):
    """The loss and its gradient, part by part in the forward pass: the gradient of a sum needs nothing from above.

    With z = W h + b and p = softmax(z), the loss -log p_y has the slope p - e_y in z (Bridle 1990, equation 10).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_LD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_L: Tensor,
        rows: int,
        product: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        device = hidden_LD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_LD.dtype
        lowered_VD, lowered_V = weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
        wanted = ctx.needs_input_grad
        slope_LD = torch.zeros_like(hidden_LD)
        slope_VD = torch.zeros_like(weight_VD) if wanted[1] else None
        slope_V = torch.zeros_like(bias_V) if bias_V is not None and wanted[2] else None
        total = hidden_LD.new_zeros((), dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            for part in range(0, len(hidden_LD), rows):
                part_CD = hidden_LD[part : part + rows].to(dtype)
                targets_C1 = targets_L[part : part + rows, None]
                counted_C1 = targets_C1 != IGNORED
                chosen_C1 = targets_C1.where(counted_C1, 0)
                logits_CV = product(part_CD, lowered_VD, lowered_V)
                slope_CV = functional.log_softmax(logits_CV, dim=-1, dtype=torch.float32)
                total -= slope_CV.gather(1, chosen_C1).where(counted_C1, 0.0).sum()
                slope_CV.exp_().scatter_add_(1, chosen_C1, slope_CV.new_full(chosen_C1.shape, -1.0))
                lowered_CV = slope_CV.mul_(counted_C1).to(dtype)
                slope_LD[part : part + rows] = lowered_CV @ lowered_VD
                if slope_VD is not None:
                    slope_VD += lowered_CV.t() @ part_CD
                if slope_V is not None:
                    slope_V += slope_CV.sum(0)
        ctx.save_for_backward(slope_LD, slope_VD, slope_V)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        slopes = [None if slope is None else slope * above for slope in ctx.saved_tensors]
        return (*slopes, None, None, None)
