"""Tiny random encoder-decoders of each type of the table, and tokenizers for them."""

from __future__ import annotations

import torch

from conftest import SENTENCES

T5_LIKE = ("t5", "mt5", "umt5", "longt5")
BART_LIKE = ("bart", "mbart", "marian", "pegasus")
TYPES = T5_LIKE + BART_LIKE


def tiny_writer(model_type: str, seed: int = 0, vocab_size: int = 120, **changes):
    """Two blocks a side, hidden 32, no dropout, weights spread so that greedy text varies."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    if model_type in T5_LIKE:
        settings = {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
            "decoder_start_token_id": 0,
            "initializer_factor": 5.0,
        }
    else:
        settings = {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 64,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "init_std": 0.25,
            "forced_eos_token_id": None,
        }
    if model_type == "marian":
        settings |= {"pad_token_id": 119, "decoder_start_token_id": 119, "eos_token_id": 1}
        # Tied, it would write one word for ever, whatever it reads.
        settings |= {"tie_word_embeddings": False, "init_std": 0.5}
    if model_type == "mbart":
        settings |= {"decoder_start_token_id": 7}
    # In transformers 5.17 umT5's decoder reads what it is to write, but for this implementation of attention.
    attention = {"attn_implementation": "eager"} if model_type == "umt5" else {}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **{"vocab_size": vocab_size, **settings, **changes})
    return AutoModelForSeq2SeqLM.from_config(config, **attention).eval()


def unigram_tokenizer(sentinels: int = 20, vocab_size: int = 300):
    """A T5 tokenizer: pad 0, EOS 1, unknown 2, pieces with byte fallback, and `<extra_id_N>` at the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    names = [f"<extra_id_{number}>" for number in reversed(range(sentinels))]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    return tokenizer


def bart_tokenizer(mask: bool = True):
    """A byte-level tokenizer framed as BART's: `<s>` 0, pad 1, `</s>` 2, unknown 3, `<mask>` 4."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names, **({"mask_token": "<mask>"} if mask else {}))
