"""How rows lie in a run: end to end where that is proved safe and fast, else in buckets of similar length, padded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lorakit.checkpoints.finding import quiet
from lorakit.families import Family, width
from lorakit.recipe import Recipe
from lorakit.training.precision import Precision
from lorakit.workflows.preparing import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
"""Names under which a config counts its attention heads."""
_DROPPED = ("attn_pdrop", "attention_dropout", "attention_probs_dropout_prob")
"""Names under which it says what share of the attention weights is dropped."""


def loaded(
    recipe: Recipe, rows: Rows, device: torch.device, precision: Precision
) -> tuple[PreTrainedModel, tuple[str, ...], str, str]:
    """Load the base with its head, on the processor, with the attention that the layout of its rows asks for.

    Args:
        recipe: As it runs.
        rows: Prepared for it.
        device: Where the model will compute.
        precision: Of its products.

    Returns:
        The model, the names of what is new in it, the name of the attention, and why rows cannot be packed, or "".
    """
    from lorakit.fast import varlen
    from lorakit.fast.isolation import proves_isolated

    checkpoint, objective = rows.checkpoint, rows.objective
    dropout = recipe.train.dropout
    if dropout is None and recipe.method.name in ("lora", "head"):
        dropout = 0.0

    def load(attention: str) -> tuple[PreTrainedModel, tuple[str, ...]]:
        return checkpoint.load_for(objective.head, "float32", attention, dropout, recipe.train.seed)

    note = _never_packed(recipe, rows) or _misses_kernel(rows, dropout, device, precision)
    if not note:
        with quiet():
            model, fresh = load(varlen.NAME)
            note = proves_isolated(model, pools(rows))
        if not note:
            return model, fresh, varlen.NAME, ""
    return *load("sdpa"), "sdpa", note


def pools(rows: Rows) -> Family | None:
    """Return the family of a model whose head scores whole rows."""
    return rows.checkpoint.family if rows.objective.head.task == "sequence_classification" else None


def _never_packed(recipe: Recipe, rows: Rows) -> str:
    """Return what is known without the model to keep rows from being packed, or ""."""
    family, objective = rows.checkpoint.family, rows.objective
    if not recipe.speed.varlen:
        return "switched off"
    if not family.packs:
        return f"{family.model_type} attends in a way of its own"
    if family.kind == "encoder_decoder" and objective.head.task != "seq2seq_lm":
        return f"{family.model_type} packs what it writes, not what {objective.name} asks of it"
    if family.kind == "encoder_decoder" and recipe.method.name in ("full", "freeze"):
        # Attention without a fused backward pass, row by row: slower than padding (benchmarks/figures.sh e2e_t5).
        return f"the relative bias of {family.model_type} learns"
    return ""


def _misses_kernel(rows: Rows, dropout: float | None, device: torch.device, precision: Precision) -> str:
    """Return why a GPU's kernel for packed rows would not attend these, or "".

    Without it each segment of each layer is a launch of its own, which takes a GPU longer than padding does.
    """
    from lorakit.fast import varlen_kernel

    config, family = rows.checkpoint.config, rows.checkpoint.family
    if device.type != "cuda":
        return ""
    lacking = varlen_kernel.lacks(device)
    if lacking:
        return lacking
    if precision != "bfloat16":
        return f"a GPU's kernel for packed rows takes bfloat16, not {precision}"
    if family.kind == "encoder_decoder":
        return f"a GPU's kernel for packed rows takes no bias, as {family.model_type} has"
    if config.get("attn_logit_softcapping") is not None:
        return f"a GPU's kernel for packed rows bounds no scores, as {family.model_type} does"
    if dropout or (dropout is None and any(config.get(name) for name in _DROPPED)):
        return "a GPU's kernel for packed rows drops no attention weights; train.dropout=0 packs them"
    heads = next((config[name] for name in _HEADS if config.get(name)), None)
    wide = config.get("head_dim") or ((width(config) or 0) // heads if heads else 0)
    if wide and not varlen_kernel.fits(wide):
        return f"a GPU's kernel for packed rows takes no heads of {wide} features"
    return ""
