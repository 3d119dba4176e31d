"""Rows of embeddings and output layer that learn while the rest stays: plainly, or through PEFT and its gaps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lorakit.checkpoints import added, ties
from lorakit.errors import TrainingError

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def layers_with(model: PreTrainedModel, ids: Sequence[int]) -> dict[str, list[int]]:
    """Return PEFT's `trainable_token_indices`: the embeddings and an output layer of its own -> rows that learn."""
    names = [ties.embeddings_name(model)]
    if model.get_output_embeddings() is not None and not ties.is_tied(model):
        names.append(ties.head_name(model))
    return {name.removesuffix(".weight"): list(ids) for name in names}


def learn(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Let rows of frozen embeddings, and of an output layer of its own, learn without PEFT.

    The slope of all other rows is zero, and so is each step of theirs: embeddings are never decayed, and of an output
    layer, which is, a matrix that is added learns.
    """
    for name in layers_with(model, ids) if ids else ():
        layer = model.get_submodule(name)
        weight = layer.get_parameter("weight")
        if weight.requires_grad:
            continue
        learning = weight.requires_grad_(True) if layer is model.get_input_embeddings() else added.add(layer)
        learning.register_hook(partial(_of_rows, list(ids)))


def _of_rows(ids: list[int], slope_VD: Tensor) -> Tensor:
    alone_VD = slope_VD.new_zeros(slope_VD.shape)
    alone_VD[ids] = slope_VD[ids]
    return alone_VD


def complete(wrapped: PeftModel) -> None:
    """Put right what PEFT 0.21 does with rows of single tokens: it leaves out the bias of an output layer.

    Raises:
        TrainingError: It does not reach all layers that share the embeddings, or takes others for shared.
    """
    from peft.utils.other import TrainableTokensWrapper

    found = [module for module in wrapped.modules() if isinstance(module, TrainableTokensWrapper)]
    if not found:
        return
    tied = {id(module.original_module.weight) for module in found if module.token_adapter.tied_adapter}
    learning = {id(module.original_module.weight) for module in found if not module.token_adapter.tied_adapter}
    bare = (layer for parent in wrapped.modules() if not _wraps(parent) for layer in parent.children())
    if tied - learning or any(id(layer._parameters.get("weight")) in learning for layer in bare):
        model_type = type(wrapped.get_base_model()).__name__
        raise TrainingError(
            f"rows of new tokens cannot learn beside LoRA in a {model_type} with these weights: PEFT does not see "
            f"which of its layers share the embeddings. Train it with method full."
        )
    for module in found:
        if getattr(module.original_module, "bias", None) is not None:
            module.token_adapter.register_forward_hook(_with_bias)


def _wraps(module: nn.Module) -> bool:
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    return isinstance(module, TrainableTokensLayer)


def _with_bias(adapter: Any, _: object, scores: Tensor) -> Tensor:
    plain = adapter.disable_adapters or adapter.merged or not adapter.active_adapters
    return scores if plain else scores + adapter.base_layer.bias
