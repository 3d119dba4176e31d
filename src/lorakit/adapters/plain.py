"""A target as people without lorakit open it: with PEFT and transformers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from lorakit.adapters.bundle import Target
from lorakit.adapters.lora_file import misfits, read_lora_weights
from lorakit.checkpoints import heads
from lorakit.checkpoints.finding import quiet

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def load(target: Target) -> tuple[nn.Module, list[str]]:
    """Return a LoRA adapter on its base through `PeftModel.from_pretrained`, or a whole model through transformers.

    Args:
        target: Of form ``lora``, ``full``, ``merged`` or ``base``.

    Returns:
        The model in eval mode, float32; and a line for each tensor of the files that it does not hold.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    # What a new head starts with is drawn at random, and read from the adapter afterwards.
    with quiet(), torch.random.fork_rng(devices=[]):
        model, info = _pretrained(target)
        if target.adapter is None:
            unread = [*info["unexpected_keys"], *(name for name, *_ in info["mismatched_keys"])]
            return model, [f"not read    {name}" for name in sorted(unread)]
        if target.base.new_tokens is not None and target.base.new_tokens.rows > target.base.new_tokens.stored:
            model.resize_token_embeddings(target.base.new_tokens.rows)
        wrapped = PeftModel.from_pretrained(cast("Any", model), str(target.folder))
        held, stored = (
            get_peft_model_state_dict(wrapped, save_embedding_layers=False),
            read_lora_weights(target.folder),
        )
    other = sorted(name for name in held.keys() & stored.keys() if not held[name].equal(stored[name].to(held[name])))
    return wrapped.eval(), [*misfits(held, stored), *(f"not read    {name}" for name in other)]


def _pretrained(target: Target) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return what transformers makes of the base, and what it says about its tensors."""
    import torch

    labels = {"num_labels": len(target.head.labels)} if target.head.labels and target.adapter is not None else {}
    model, info = heads.auto_class(target.head).from_pretrained(
        str(target.base.folder),
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
        **labels,
    )
    return model.eval(), info
