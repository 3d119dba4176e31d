"""Every model type of the table at its smallest: two layers, hidden 32, random weights."""

from __future__ import annotations

from typing import Any

import torch

VOCABULARY = 96

_IDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_PLAIN = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_GROUPED = {**_PLAIN, "num_key_value_heads": 2, "head_dim": 8}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}

SHAPES: dict[str, dict[str, Any]] = {
    "bert": _PLAIN,
    # One row for the padding id and one before it: 64 usable positions.
    "roberta": {**_PLAIN, "pad_token_id": 1, "bos_token_id": 0, "max_position_embeddings": 66},
    "xlm-roberta": {**_PLAIN, "pad_token_id": 1, "bos_token_id": 0, "max_position_embeddings": 66},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
    "electra": {**_PLAIN, "embedding_size": 16},
    "albert": {**_PLAIN, "embedding_size": 16},
    "deberta-v2": {
        **_PLAIN,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
    },
    "modernbert": {
        **_PLAIN,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "local_attention": 4,
        "global_attn_every_n_layers": 2,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "gpt_neox": _PLAIN,
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 64,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": 4},
    "qwen2": _GROUPED,
    "qwen3": _GROUPED,
    "gemma": _GROUPED,
    "gemma2": {**_GROUPED, "sliding_window": 4, "query_pre_attn_scalar": 8},
    "gemma3_text": {
        **_GROUPED,
        "sliding_window": 4,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "phi": _PLAIN,
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "bart": _BART,
    "mbart": _BART,
    "marian": _BART,
    "pegasus": _BART,
    "longt5": {**_T5, "local_radius": 3, "global_block_size": 4},
}
"""Settings of each type, in the order of the table."""


def tiny_config(model_type: str, **changes: Any) -> Any:
    """Return the smallest config of a type, dropout as its authors set it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**{**_IDS, **SHAPES[model_type], **changes})


def tiny_model(model_type: str, auto: Any, attention: str = "eager", **changes: Any) -> Any:
    """Return a seeded model of a type in eval mode, its weights so large that what hides positions shows.

    Args:
        model_type: Of the table.
        auto: transformers' Auto class of its head.
        attention: Name of the attention function.
        **changes: Of its config.
    """
    torch.manual_seed(0)
    model = auto.from_config(tiny_config(model_type, **changes), attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.empty_like(weight).normal_(0, 0.15, generator=generator))
    return model
