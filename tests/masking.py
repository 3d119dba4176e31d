"""What tests of hidden words share: a tokenizer of word pieces whose vocabulary is written down, and tiny encoders."""

from __future__ import annotations

from typing import Any

import torch

from conftest import SENTENCES
from lorakit import families
from lorakit.objectives.masked_lm import MaskedLM
from lorakit.objectives.settings import MaskedLMSettings
from lorakit.types import Job, PromptStyle, Row

SPECIAL = ("[CLS]", "[PAD]", "[UNK]", "[SEP]", "[MASK]")
"""The padding id is 1, as in RoBERTa."""

DOCUMENTS = tuple(
    Row({"text": " ".join([*SENTENCES[start:], *SENTENCES[:start]])}, "documents.txt", start + 1)
    for start in range(len(SENTENCES))
)

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "initializer_range": 0.2,
    "pad_token_id": 1,
}
SHAPES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 0, "sep_token_id": 3},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
}


def word_pieces():
    """Word pieces: all letters, alone and as continuations, and the shorter words; nothing trained, nothing unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set("".join(SENTENCES)) - {" "})
    words = sorted({word for sentence in SENTENCES for word in sentence.split() if 1 < len(word) < 6})
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *(word for word in words if word.isalpha())]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    backend.decoder = decoders.WordPiece()
    names = dict(zip(("cls_token", "pad_token", "unk_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def made(model_type: str = "bert", auto: str = "AutoModelForMaskedLM", attention: str = "eager"):
    """A tiny seeded encoder."""
    import transformers

    torch.manual_seed(0)
    shape = {**SHAPE, **SHAPES[model_type], "vocab_size": len(word_pieces())}
    config = transformers.AutoConfig.for_model(model_type, **shape)
    return getattr(transformers, auto).from_config(config, attn_implementation=attention).eval()


def masked_lm(
    model_type: str = "bert", max_length: int = 48, seed: int = 0, tokenizer=None, label_logits_only=True, **settings
) -> MaskedLM:
    """The objective for tiny encoders."""
    config = {"model_type": model_type, "type_vocab_size": 2, **SHAPE, **SHAPES[model_type]}
    family = families.of(model_type, config=config)
    tokenizer = tokenizer or word_pieces()
    return MaskedLM.of(
        Job(
            MaskedLMSettings(**settings),
            tokenizer,
            family,
            config,
            "text",
            PromptStyle(),
            max_length,
            label_logits_only=label_logits_only,
            seed=seed,
        )
    )
