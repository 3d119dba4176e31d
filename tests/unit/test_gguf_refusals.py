"""What a GGUF file cannot hold is refused before any work, saying what to do; llama.cpp need not be installed."""

from __future__ import annotations

import pytest
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)

from conftest import save_checkpoint, tiny_gpt2, tiny_llama, tiny_tokenizer
from encoders import framing
from lorakit.errors import LorakitError
from lorakit.workflows import export_gguf
from lorakit.workflows.exporting import export
from model_types import tiny_model
from writers import tiny_writer, unigram_tokenizer

IDS = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0}


def unigram():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((character, -1.0) for character in "abc")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def lower():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def gemma_3(**changes):
    settings = {**IDS, "tie_word_embeddings": True, "num_hidden_layers": 1, "layer_types": ["sliding_attention"]}
    return tiny_model("gemma3_text", AutoModelForCausalLM, **{**settings, **changes})


SCALED = {"sliding_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}}
MODELS = {
    "an exact GELU": (lambda: tiny_gpt2(activation_function="gelu"), None, "gelu_new or gelu_pytorch_tanh"),
    "unscaled attention": (lambda: tiny_gpt2(scale_attn_weights=False), None, "divides the scores of attention"),
    "scaled positions": (
        lambda: tiny_llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}),
        None,
        "scale positions",
    ),
    "an untied Gemma": (
        lambda: tiny_model("gemma", AutoModelForCausalLM, **IDS, tie_word_embeddings=False),
        None,
        "no output layer apart from the embeddings",
    ),
    "another order of windows": (
        lambda: tiny_model("gemma2", AutoModelForCausalLM, **IDS, layer_types=["full_attention", "sliding_attention"]),
        None,
        "the last of 2 layers attend to all",
    ),
    "Gemma 3's windows otherwise": (
        lambda: gemma_3(layer_types=None, num_hidden_layers=6, sliding_window_pattern=3),
        None,
        "the last of 6 layers",
    ),
    "capped scores": (lambda: gemma_3(final_logit_softcapping=30.0), None, "does not cap the scores"),
    "scaled windows": (lambda: gemma_3(rope_parameters=SCALED), None, "does not scale positions within windows"),
    "both sides": (lambda: gemma_3(use_bidirectional_attention=True), None, "this model to those behind it too"),
    "a short window": (
        lambda: tiny_model("mistral", AutoModelForCausalLM, **IDS),
        None,
        "does not attend to windows, and this model to one of 4 tokens",
    ),
    "another type": (lambda: tiny_model("opt", AutoModelForCausalLM, **IDS), None, "knows models of type gpt2, llama"),
    "a BERT cut in bytes": (lambda: tiny_model("bert", AutoModelForMaskedLM, **IDS), framing, "is BPE, not WordPiece"),
    "pieces by probability": (tiny_llama, unigram, "its model is Unigram, not BPE"),
    "text in lower case": (tiny_llama, lower, "does not cut text as this tokenizer does"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_llama_cpp_lacks_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(export_gguf, "_check_installed", lambda: None)
    make, tokenizer, said = MODELS[name]
    save_checkpoint(tmp_path / "base", make(), None if tokenizer is None else tokenizer())
    with pytest.raises(LorakitError, match=said):
        export(str(tmp_path / "base"), "gguf", tmp_path / "model.gguf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["base"]


HEADS = {
    "tags of tokens": ("bert", AutoModelForTokenClassification, framing),
    "places of answers": ("bert", AutoModelForQuestionAnswering, framing),
    "labels of a decoder": ("llama", AutoModelForSequenceClassification, tiny_tokenizer),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_llama_cpp_has_no_place_for_is_refused(tmp_path, name):
    model_type, auto, tokenizer = HEADS[name]
    save_checkpoint(tmp_path / "base", tiny_model(model_type, auto, **{**IDS, "pad_token_id": 1}), tokenizer())
    with pytest.raises(LorakitError, match=r"no place for a head for .*, which .* has: use --to onnx"):
        export(str(tmp_path / "base"), "gguf", tmp_path / "model.gguf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["base"]


WRITERS = {
    "a gated ReLU": ({"feed_forward_proj": "gated-relu"}, "has relu or gated-gelu between .* this model gated-relu"),
    "a deeper decoder": ({"num_decoder_layers": 3}, "at most as many layers in a decoder as in its encoder"),
    "longer distances": ({"relative_attention_max_distance": 256}, "up to 128 apart, and this model up to 256"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_an_encoder_decoder_that_llama_cpp_lacks_is_refused(tmp_path, name):
    changes, said = WRITERS[name]
    tokenizer = unigram_tokenizer()
    save_checkpoint(tmp_path / "base", tiny_writer("t5", vocab_size=len(tokenizer), **changes), tokenizer)
    with pytest.raises(LorakitError, match=said):
        export(str(tmp_path / "base"), "gguf", tmp_path / "model.gguf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["base"]


def crossing():
    """A tokenizer with a piece of two digits, before which it cuts text into single digits."""
    tokenizer = unigram_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True)])
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("1", -1.0), ("11", -1.0)]
    backend.model = models.Unigram(pieces, 2)
    return tokenizer


def lower_unigram():
    tokenizer = unigram_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


@pytest.mark.parametrize("make", [crossing, lower_unigram])
def test_pieces_that_llama_cpp_would_choose_otherwise_are_refused(tmp_path, make):
    save_checkpoint(tmp_path / "base", tiny_writer("t5", vocab_size=400), make())
    with pytest.raises(LorakitError, match="does not cut text as this tokenizer does"):
        export(str(tmp_path / "base"), "gguf", tmp_path / "model.gguf")


def test_parts_are_refused(tmp_path):
    with pytest.raises(LorakitError, match="GGUF is one file"):
        export("tiny-gpt", "gguf", tmp_path / "model.gguf", shard_size=1000)


def test_a_missing_library_is_answered_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(export_gguf, "find_spec", lambda name: None)
    with pytest.raises(LorakitError, match=r"pip install 'lorakit\[export\]'"):
        export("tiny-gpt", "gguf", tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "also holds .*lora_magnitude_vector.*use --to gguf, which merges it"),
        ({"modules_to_save": ["lm_head"]}, "also holds .*lm_head"),
        ({"target_modules": ["lm_head"]}, "no pairs on embeddings and output layers"),
    ],
)
def test_an_adapter_that_is_more_than_pairs_is_refused_alone(tmp_path, llama_folder, settings, said):
    config = LoraConfig(task_type="CAUSAL_LM", r=2, **{"target_modules": ["q_proj"], **settings})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(llama_folder), config)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(LorakitError, match=said):
        export(str(tmp_path / "adapter"), "gguf-lora", tmp_path / "pairs.gguf", base=str(llama_folder))


def test_a_whole_model_is_no_adapter(tmp_path):
    with pytest.raises(LorakitError, match="is no LoRA adapter"):
        export("tiny-gpt", "gguf-lora", tmp_path / "pairs.gguf")
