"""Single rows of embeddings and output layer that learn while the rest stays: through PEFT, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorakit.checkpoints import ties
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


def complete(wrapped: PeftModel) -> None:
    """Put right what PEFT 0.21 does with rows of single tokens: it leaves out the bias of an output layer.

    Raises:
        TrainingError: It does not reach all layers that share the embeddings, or takes others for shared.
    """
    from peft.utils.other import TrainableTokensWrapper

    found = [module for module in wrapped.modules() if isinstance(module, TrainableTokensWrapper)]
    if not found:
        return
    inner: Any = wrapped.get_base_model()
    held = [module.original_module for module in found]
    tied = [module.original_module for module in found if module.token_adapter.tied_adapter]
    embeddings = inner.get_input_embeddings()
    shared = getattr(embeddings, "original_module", embeddings).weight
    apart = any(layer.weight is not shared for layer in tied)
    missed = any(_weight(module) is shared and module not in held for module in wrapped.modules())
    if apart or missed:
        raise TrainingError(
            f"rows of new tokens cannot learn beside LoRA in this {inner.config.model_type} model: PEFT does not see "
            f"which of its layers share the embeddings. Train it with method full."
        )
    for module in found:
        if getattr(module.original_module, "bias", None) is not None:
            module.token_adapter.register_forward_hook(_with_bias)


def _weight(module: nn.Module) -> object:
    return module._parameters.get("weight")


def _with_bias(adapter: Any, _: object, scores: Tensor) -> Tensor:
    plain = adapter.disable_adapters or adapter.merged or not adapter.active_adapters
    return scores if plain else scores + adapter.base_layer.bias
