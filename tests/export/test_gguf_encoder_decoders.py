"""A T5 as a GGUF file, read by llama.cpp's encode and decode calls, says what plain PEFT and plain transformers say."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoModelForSeq2SeqLM

from bundles import moved_adapter
from conftest import PAIRS, SENTENCES, save_checkpoint
from lorakit.adapters.bundle import open_target
from lorakit.adapters.export import gguf_architectures
from lorakit.adapters.export.gguf_charsmap import compiled
from lorakit.checkpoints import vocabularies
from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError
from lorakit.workflows.exporting import export
from runs import train
from writers import tiny_writer, unigram_tokenizer

REASON = "llama.cpp is not installed: pip install 'lorakit[export]'"
gguf = pytest.importorskip("gguf", reason=REASON)
llama_cpp = pytest.importorskip("llama_cpp", reason=REASON)

TEXTS = (*SENTENCES, "It's 1031 = 1,024 + 7!  Two\n\nlines,\tand a tab; naïve 'quotes' 😀 漢字")
SOURCE_T = (torch.arange(40) * 7 % 300).tolist()
# Longer than the distances that T5 tells apart.
LONG_T = (torch.arange(150) * 11 % 300).tolist()
READ_U = [0, *(torch.arange(20) * 5 % 300).tolist()]
GATED = {"feed_forward_proj": "gated-gelu"}


def runtime(file: Path, pairs: Path | None = None):
    settings = {"lora_path": pairs and str(pairs), "n_ctx": 256, "n_threads": 1, "logits_all": True, "verbose": False}
    return llama_cpp.Llama(str(file), type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, **settings)


def encode(found, source) -> None:
    tokens = (llama_cpp.llama_token * len(source))(*source)
    assert llama_cpp.llama_encode(found.ctx, llama_cpp.llama_batch_get_one(tokens, len(source))) == 0


def difference(file: Path, model, source=SOURCE_T, pairs: Path | None = None) -> float:
    """Largest difference of two logits as a share of the largest one."""
    found = runtime(file, pairs)
    encode(found, source)
    found.eval(READ_U)
    with torch.inference_mode():
        inputs = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([READ_U])}
        expected_UV = model(**inputs).logits[0]
    found_UV = torch.from_numpy(found.scores[: len(READ_U)].copy())
    return float((found_UV - expected_UV).abs().max() / expected_UV.abs().max())


@cache
def t5_tokenizer():
    """A tokenizer that spells characters outside its vocabulary in bytes, as that of the built-in T5."""
    return vocabularies.unigram(
        [*SENTENCES, *(f"{number} {sentence}" for number, sentence in enumerate(SENTENCES))], 640, 512
    )


def t5(folder: Path, model_type: str = "t5", tokenizer=None, **changes) -> Path:
    tokenizer = tokenizer or t5_tokenizer()
    # With larger weights attention is so sharp that transformers itself differs in float32 and float64.
    model = tiny_writer(model_type, vocab_size=len(tokenizer) + 3, initializer_factor=1.0, **changes)
    return save_checkpoint(folder, model, tokenizer)


def adapter(folder: Path, base: Path, **settings) -> Path:
    """Train and save an adapter with plain PEFT; no manifest."""
    model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32)
    settings = {"target_modules": ["q", "k", "o", "wi", "wo"], "r": 4, "lora_alpha": 16, **settings}
    return moved_adapter(folder, model, task_type="SEQ_2_SEQ_LM", **settings)


VARIANTS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"SelfAttention.q": 2}, "alpha_pattern": {"wo": 64}},
    "untied": {"modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_adapter_in_llama_cpp_says_what_plain_peft_says(tmp_path, variant):
    base = t5(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", base, **VARIANTS[variant])
    export(str(folder), "gguf", tmp_path / "model.gguf", "f32", base=str(base))
    below = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32)
    assert difference(tmp_path / "model.gguf", PeftModel.from_pretrained(below, folder).eval()) <= 1e-4


@pytest.mark.parametrize("variant", ["rslora", "patterns"])
def test_pairs_on_their_base_in_llama_cpp_say_what_plain_peft_says(tmp_path, variant):
    base = t5(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", base, **VARIANTS[variant])
    export(str(folder), "gguf-lora", tmp_path / "pairs.gguf", base=str(base))
    export(str(base), "gguf", tmp_path / "base.gguf", "f32")
    below = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32)
    plain = PeftModel.from_pretrained(below, folder).eval()
    assert difference(tmp_path / "base.gguf", plain, pairs=tmp_path / "pairs.gguf") <= 1e-4


MODELS = {
    "t5": ("t5", {}, 1e-4),
    "gated": ("t5", GATED, 5e-3),
    "a deeper encoder": ("t5", {"num_layers": 3, "num_decoder_layers": 2}, 1e-4),
    "unscaled scores": ("t5", {"tie_word_embeddings": False}, 1e-4),
    "mt5": ("mt5", GATED, 5e-3),
    "umt5": ("umt5", GATED, 5e-3),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_each_type_says_what_transformers_says(tmp_path, name):
    model_type, changes, bound = MODELS[name]
    base = t5(tmp_path / "base", model_type, **changes)
    export(str(base), "gguf", tmp_path / "model.gguf", "f32")
    # In transformers 5.17 umT5's decoder reads what it is to write, but for this implementation of attention.
    model = AutoModelForSeq2SeqLM.from_pretrained(base, attn_implementation="eager").eval()
    assert difference(tmp_path / "model.gguf", model) <= bound
    assert difference(tmp_path / "model.gguf", model, LONG_T) <= bound


def test_an_output_layer_of_its_own_is_kept(tmp_path):
    """As of Flan-T5, whose output layer stands beside its embeddings, and whose scores are not scaled."""
    base = t5(tmp_path / "base", tie_word_embeddings=False, **GATED)
    model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32).eval()
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(base)
    export(str(base), "gguf", tmp_path / "model.gguf", "f32")
    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert "output.weight" in names
    assert difference(tmp_path / "model.gguf", model) <= 5e-3


def test_llama_cpp_writes_what_transformers_writes(tmp_path):
    base = t5(tmp_path / "base")
    export(str(base), "gguf", tmp_path / "model.gguf", "f32")
    model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32).eval()
    expected = model.generate(torch.tensor([SOURCE_T]), max_new_tokens=12, do_sample=False)[0].tolist()
    found = runtime(tmp_path / "model.gguf")
    encode(found, SOURCE_T)
    written = [llama_cpp.llama_model_decoder_start_token(found.model)]
    while len(written) < len(expected):
        found.eval(written[-1:])
        written.append(int(found.scores[len(written) - 1].argmax()))
    assert written == expected


def test_new_tokens_are_words_of_the_file(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in PAIRS), encoding="utf-8")
    values = {"model__add_tokens": ["Dahlia", "강남"], "optim__learning_rate": 1e-2, "train__max_steps": 3}
    tokenizer = t5_tokenizer()
    model = tiny_writer("t5", vocab_size=len(tokenizer), initializer_factor=1.0)
    base = save_checkpoint(tmp_path / "base", model, tokenizer)
    folder = train(tmp_path / "run", base, rows, **values).folder
    export(str(folder), "gguf", tmp_path / "model.gguf", "f32")
    new = [len(tokenizer), 5, len(tokenizer) + 1, 1]
    assert runtime(tmp_path / "model.gguf").tokenize("Dahlia강남".encode(), special=False) == [new[0], new[2], 1]
    assert difference(tmp_path / "model.gguf", open_target(str(folder)).load(), new) <= 1e-4


def of_t5_itself():
    """What T5's own tokenizer does: a table of characters, white space cut off, a space before each word."""
    tokenizer = unigram_tokenizer()
    spaces = {character.encode(): " " for character in "\t\n\r "}
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Precompiled(compiled({**spaces, "ï".encode(): "i", "１".encode(): "1"}))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return tokenizer


TOKENIZERS = {"builtin": lambda: find("tiny-t5").tokenizer, "in bytes": t5_tokenizer, "T5's own": of_t5_itself}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_cuts_text_as_the_tokenizer_does(tmp_path, name):
    tokenizer = TOKENIZERS[name]()
    base = t5(tmp_path / "base", tokenizer=tokenizer)
    export(str(base), "gguf", tmp_path / "model.gguf", "f32")
    found = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    for text in (*TEXTS, " a  b ", "\n", "１", *(() if name == "T5's own" else ("▁", "a▁b"))):
        assert found.tokenize(text.encode(), special=False) == tokenizer(text).input_ids


def test_what_the_decoder_begins_with_and_ends_at_stands_in_the_file(tmp_path):
    export("tiny-t5", "gguf", tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    keys = ("t5.decoder_start_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.padding_token_id")
    assert [reader.get_field(key).contents() for key in keys] == [0, 1, 0]
    assert reader.get_field("tokenizer.ggml.add_eos_token").contents() is True


def test_rows_that_8_bits_cannot_cut_keep_the_range_of_float32(tmp_path):
    export("tiny-t5", "gguf", tmp_path / "model.gguf", "q8_0")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert (kinds["enc.blk.0.attn_q.weight"], kinds["enc.blk.0.ffn_down.weight"]) == ("BF16", "Q8_0")


def test_a_trained_run_is_compared_on_its_own_rows_and_tells_its_prefix(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in PAIRS), encoding="utf-8")
    values = {"objective__name": "seq2seq_lm", "objective__prefix": "say: ", "train__max_steps": 2}
    folder = train(tmp_path / "run", "tiny-t5", rows, **values).folder
    done = export(str(folder), "gguf", tmp_path / "model.gguf", "f32")
    assert done.proof.origin == "the run's evaluation rows"
    assert done.proof.same_text == 1
    assert any("write 'say: ' before each" in note for note in done.notes)


def test_wrong_weights_are_found_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_architectures, "_scales_output", lambda config: False)
    with pytest.raises(LorakitError, match="does not compute this model"):
        export("tiny-t5", "gguf", tmp_path / "model.gguf", "f32")
    assert list(tmp_path.iterdir()) == []
