"""One row a model type: where its blocks are, what LoRA adapts by default, what it cannot do.

A type that is not in the table still works where transformers' Auto classes and PEFT allow it; `of` then finds the
blocks by looking and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lorakit.errors import CheckpointError

Kind = Literal["encoder", "decoder", "encoder_decoder"]


@dataclass(frozen=True, slots=True)
class Family:
    """What lorakit knows about a model type."""

    model_type: str
    """`model_type` of the checkpoint's config.json."""
    kind: Kind
    blocks: str
    """Dotted path of the block list inside the language model."""
    targets: tuple[str, ...]
    """Ends of the names of the linear layers that LoRA adapts by default."""
    positions: str | None
    """Key of config.json that bounds the length of an input; None where nothing bounds it."""
    packs: bool = True
    """Whether rows may be packed end to end (measured, and proved again at the start of each run)."""
    first_position: int = 0
    """Number of the first position of a text: RoBERTa and its kin count from the padding id + 1."""
    listed: bool = True
    """False for a type that stands outside the table."""


_LLAMA_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _llama_like(model_type: str) -> Family:
    return Family(model_type, "decoder", "model.layers", _LLAMA_LINEARS, "max_position_embeddings")


_TABLE = {
    family.model_type: family
    for family in (
        Family("gpt2", "decoder", "transformer.h", ("c_attn", "c_proj", "c_fc"), "n_positions"),
        Family(
            "gpt_neo",
            "decoder",
            "transformer.h",
            ("q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"),
            "max_position_embeddings",
            packs=False,
        ),
        Family(
            "gpt_neox",
            "decoder",
            "gpt_neox.layers",
            ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
            "max_position_embeddings",
        ),
        Family(
            "opt",
            "decoder",
            "model.decoder.layers",
            ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
            "max_position_embeddings",
        ),
        Family(
            "bloom",
            "decoder",
            "transformer.h",
            ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
            None,
            packs=False,
        ),
        *(_llama_like(model_type) for model_type in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2")),
        Family(
            "phi",
            "decoder",
            "model.layers",
            ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
            "max_position_embeddings",
        ),
    )
}


def of(model_type: str, architectures: tuple[str, ...] = ()) -> Family:
    """Return the family of `model_type`.

    Args:
        model_type: As in config.json.
        architectures: As in config.json; used for a type outside the table.

    Raises:
        CheckpointError: The type is outside the table and is not known as a decoder either.
    """
    if model_type in _TABLE:
        return _TABLE[model_type]
    if any(name.endswith("ForCausalLM") or name.endswith("LMHeadModel") for name in architectures):
        return Family(model_type, "decoder", "", (), "max_position_embeddings", packs=False, listed=False)
    raise CheckpointError(
        f"model type {model_type!r} cannot be trained: lorakit knows {', '.join(sorted(_TABLE))}, and other types "
        f"whose config.json names a ...ForCausalLM class (here: {', '.join(architectures) or 'none'})."
    )


def listed() -> tuple[Family, ...]:
    """Return the families of the table, in its order."""
    return tuple(_TABLE.values())
