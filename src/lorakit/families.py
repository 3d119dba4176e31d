"""One row a model type: where its blocks are, what LoRA adapts by default, what it cannot do.

A type that is not in the table still works where transformers' Auto classes and PEFT allow it; `of` then finds the
blocks by looking and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from lorakit.errors import CheckpointError

Kind = Literal["encoder", "decoder", "encoder_decoder"]


@dataclass(frozen=True, slots=True)
class Family:
    """What lorakit knows about a model type."""

    model_type: str
    """`model_type` of the checkpoint's config.json."""
    kind: Kind
    blocks: tuple[str, ...]
    """Dotted paths of the block lists inside the backbone (`model.base_model`), the encoder's first: they are the same
    under every head. Empty outside the table."""
    targets: tuple[str, ...]
    """Ends of the names of the linear layers that LoRA adapts by default: all of the blocks. Not every checkpoint of a
    type has each of them (gated and plain layers of T5)."""
    positions: str | None
    """Key of config.json that bounds the length of an input; None where nothing bounds it."""
    packs: bool = True
    """Whether rows may be packed end to end (measured, and proved again at the start of each run)."""
    first_position: int = 0
    """Number of the first position of a text: RoBERTa and its kin count from the padding id + 1."""
    shares_blocks: bool = False
    """Whether all blocks are one set of weights (ALBERT)."""
    fp16: bool = True
    """False where activations outgrow float16 (T5 and its kin)."""
    summit: str = ""
    """Of an encoder, dotted path inside the backbone of the module whose output the heads read."""
    listed: bool = True
    """False for a type that stands outside the table."""

    def usable_positions(self, config: Mapping[str, Any]) -> int | None:
        """Return the longest input in tokens, read from config.json; None where nothing bounds it.

        RoBERTa's 514 rows are 512 positions: counting starts after the padding id.
        """
        found = config.get(self.positions) if self.positions else None
        if self.model_type == "deberta-v2" and not config.get("position_biased_input", True):
            return None
        return found - self.first_position if isinstance(found, int) else None


def _bert_like(model_type: str, first_position: int = 0) -> Family:
    linears = ("query", "key", "value", "intermediate.dense", "output.dense")
    positions = "max_position_embeddings"
    return Family(
        model_type, "encoder", ("encoder.layer",), linears, positions, first_position=first_position, summit="encoder"
    )


def _llama_like(model_type: str) -> Family:
    linears = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return Family(model_type, "decoder", ("layers",), linears, "max_position_embeddings")


def _t5_like(model_type: str, packs: bool = False) -> Family:
    blocks = ("encoder.block", "decoder.block")
    linears = ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo")
    return Family(model_type, "encoder_decoder", blocks, linears, None, packs=packs, fp16=False)


def _bart_like(model_type: str) -> Family:
    blocks = ("encoder.layers", "decoder.layers")
    linears = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    return Family(model_type, "encoder_decoder", blocks, linears, "max_position_embeddings", packs=False)


_TABLE = {
    family.model_type: family
    for family in (
        _bert_like("bert"),
        _bert_like("roberta", first_position=2),
        _bert_like("xlm-roberta", first_position=2),
        Family(
            "distilbert",
            "encoder",
            ("transformer.layer",),
            ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
            "max_position_embeddings",
            summit="transformer",
        ),
        _bert_like("electra"),
        Family(
            "albert",
            "encoder",
            ("encoder.albert_layer_groups",),
            ("query", "key", "value", "attention.dense", "ffn", "ffn_output"),
            "max_position_embeddings",
            shares_blocks=True,
            summit="encoder",
        ),
        Family(
            "deberta-v2",
            "encoder",
            ("encoder.layer",),
            ("query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"),
            "max_position_embeddings",
            packs=False,
        ),
        Family(
            "modernbert",
            "encoder",
            ("layers",),
            ("Wqkv", "Wi", "Wo"),
            "max_position_embeddings",
            summit="final_norm",
        ),
        Family("gpt2", "decoder", ("h",), ("c_attn", "c_proj", "c_fc"), "n_positions"),
        Family(
            "gpt_neo",
            "decoder",
            ("h",),
            ("q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"),
            "max_position_embeddings",
            packs=False,
        ),
        Family(
            "gpt_neox",
            "decoder",
            ("layers",),
            ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
            "max_position_embeddings",
        ),
        Family(
            "opt",
            "decoder",
            ("decoder.layers",),
            ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
            "max_position_embeddings",
        ),
        Family(
            "bloom",
            "decoder",
            ("h",),
            ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
            None,
            packs=False,
        ),
        *(
            _llama_like(model_type)
            for model_type in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
        ),
        Family(
            "phi",
            "decoder",
            ("layers",),
            ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
            "max_position_embeddings",
        ),
        _t5_like("t5", packs=True),
        _t5_like("mt5", packs=True),
        _t5_like("umt5"),
        *(_bart_like(model_type) for model_type in ("bart", "mbart", "marian", "pegasus")),
        _t5_like("longt5"),
    )
}


def of(model_type: str, architectures: tuple[str, ...] = (), config: Mapping[str, Any] | None = None) -> Family:
    """Return the family of `model_type`.

    Args:
        model_type: As in config.json.
        architectures: As in config.json; used for a type outside the table.
        config: config.json, whose padding id says where RoBERTa and its kin begin to count.

    Raises:
        CheckpointError: The type is outside the table, and transformers has no language model of it either.
    """
    family = _TABLE.get(model_type)
    padding = (config or {}).get("pad_token_id")
    if family is None:
        kind = _kind(model_type, architectures)
        family = Family(model_type, kind, (), (), "max_position_embeddings", packs=False, listed=False)
        # Whether such an encoder counts from behind its padding id, as RoBERTa's kin do, is not known; a text shorter
        # by as much is read either way. T5's kin compute as T5 does.
        first = padding + 1 if kind == "encoder" and isinstance(padding, int) else 0
        return replace(
            family, first_position=first, fp16="t5" not in model_type and model_type != "switch_transformers"
        )
    if family.first_position and isinstance(padding, int):
        return replace(family, first_position=padding + 1)
    return family


def _kind(model_type: str, architectures: tuple[str, ...]) -> Kind:
    """Tell what a type outside the table is: by its class, then by what transformers has of it."""
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        return "decoder"
    # Brings torch along, which only these types need so early.
    from transformers.models.auto import modeling_auto

    kinds: dict[Kind, Mapping[str, Any]] = {
        "encoder_decoder": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "encoder": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "decoder": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    for kind, known in kinds.items():
        if model_type in known:
            return kind
    raise CheckpointError(
        f"model type {model_type!r} cannot be trained: lorakit knows {', '.join(sorted(_TABLE))}, and other types of "
        f"which transformers has a language model (here: {', '.join(architectures) or 'no class is named'})."
    )


def listed() -> tuple[Family, ...]:
    """Return the families of the table, in its order."""
    return tuple(_TABLE.values())


def width(config: Mapping[str, Any]) -> int | None:
    """Return the size of a model's hidden states, read from config.json; None where it is under no known name."""
    return next((config[key] for key in ("hidden_size", "n_embd", "d_model", "dim") if config.get(key)), None)
