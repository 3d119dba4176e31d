"""A GGUF file in a real llama.cpp says what plain PEFT and plain transformers say of the adapter or model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM

from bundles import moved_adapter
from conftest import PAIRS, SENTENCES, save_checkpoint, tiny_gpt2, tiny_llama, tiny_tokenizer
from lorakit.adapters.bundle import open_target
from lorakit.adapters.export import gguf_file
from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError
from lorakit.workflows.exporting import export
from model_types import tiny_model
from runs import train
from sentence_pieces import sentence_piece_tokenizer

REASON = "llama.cpp is not installed: pip install 'lorakit[export]'"
gguf = pytest.importorskip("gguf", reason=REASON)
llama_cpp = pytest.importorskip("llama_cpp", reason=REASON)

IDS_T = (torch.arange(60) * 7 % 400).tolist()
TEXTS = (*SENTENCES, "It's 1031 = 1,024 + 7!  Two\n\nlines,\tand a tab; naïve 'quotes' 😀")


def runtime(file: Path, pairs: Path | None = None):
    settings = {"lora_path": pairs and str(pairs), "n_ctx": 64, "n_threads": 1, "logits_all": True, "verbose": False}
    return llama_cpp.Llama(str(file), type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, **settings)


def difference(file: Path, model, ids_T=IDS_T, pairs: Path | None = None) -> float:
    """Largest difference of two logits as a share of the largest one."""
    found = runtime(file, pairs)
    found.eval(ids_T)
    with torch.inference_mode():
        expected_TV = model(torch.tensor([ids_T])).logits[0]
    found_TV = torch.from_numpy(found.scores[: len(ids_T)].copy())
    return float((found_TV - expected_TV).abs().max() / expected_TV.abs().max())


def adapter(folder: Path, base: Path, **settings) -> Path:
    """Train and save an adapter with plain PEFT; no manifest."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    targets = ["c_attn", "c_proj", "c_fc"] if model.config.model_type == "gpt2" else ["q_proj", "k_proj", "down_proj"]
    settings = {"target_modules": targets, "r": 4, "lora_alpha": 16, **settings}
    return moved_adapter(folder, model, task_type="CAUSAL_LM", **settings)


VARIANTS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"h.1.attn.c_attn": 2, "q_proj": 2}, "alpha_pattern": {"c_fc": 64, "k_proj": 64}},
    "untied": {"modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize(("kind", "bound"), [("gpt2", 5e-3), ("llama", 1e-4)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_adapter_in_llama_cpp_says_what_plain_peft_says(tmp_path, kind, bound, variant):
    model = tiny_gpt2() if kind == "gpt2" else tiny_llama(tie_word_embeddings=True)
    base = save_checkpoint(tmp_path / "base", model)
    folder = adapter(tmp_path / "adapter", base, **VARIANTS[variant])
    export(str(folder), "gguf", tmp_path / "model.gguf", "f32", base=str(base))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder).eval()
    assert difference(tmp_path / "model.gguf", plain) <= bound


@pytest.mark.parametrize(("kind", "bound"), [("gpt2", 5e-3), ("llama", 1e-4)])
@pytest.mark.parametrize("variant", ["lora", "rslora", "patterns"])
def test_pairs_on_their_base_in_llama_cpp_say_what_plain_peft_says(tmp_path, kind, bound, variant):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2() if kind == "gpt2" else tiny_llama())
    folder = adapter(tmp_path / "adapter", base, **VARIANTS[variant])
    export(str(folder), "gguf-lora", tmp_path / "pairs.gguf", base=str(base))
    export(str(base), "gguf", tmp_path / "base.gguf", "f32")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder).eval()
    assert difference(tmp_path / "base.gguf", plain, pairs=tmp_path / "pairs.gguf") <= bound


def test_new_tokens_are_words_of_the_file(tmp_path):
    base = save_checkpoint(tmp_path / "base", tiny_llama(max_position_embeddings=128))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in PAIRS), encoding="utf-8")
    values = {"model__add_tokens": ["Dahlia", "강남"], "optim__learning_rate": 1e-2, "train__max_steps": 3}
    folder = train(tmp_path / "run", base, rows, **values).folder
    export(str(folder), "gguf", tmp_path / "model.gguf", "f32")
    assert runtime(tmp_path / "model.gguf").tokenize(b"Dahlia", special=False) == [400]
    model = open_target(str(folder)).load()
    assert difference(tmp_path / "model.gguf", model, [5, 400, 17, 401, 9, 400]) <= 1e-4


@pytest.mark.parametrize(
    ("begun", "learned", "override"),
    [
        ("tiny-gpt", PAIRS, ("tokenizer.ggml.add_bos_token", False)),
        ("plain", [{"text": text} for text in SENTENCES], ("tokenizer.ggml.add_bos_token", True)),
        ("plain", PAIRS, None),
    ],
)
def test_what_the_notes_say_makes_the_file_of_the_base_cut_text_as_training_did(tmp_path, begun, learned, override):
    base = begun if begun == "tiny-gpt" else save_checkpoint(tmp_path / "base", tiny_gpt2())
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in learned), encoding="utf-8")
    folder = train(tmp_path / "run", base, rows, train__max_steps=1, objective__separator="").folder
    notes = export(str(folder), "gguf-lora", tmp_path / "pairs.gguf").notes
    export(str(base), "gguf", tmp_path / "base.gguf", "f32")
    export(str(folder), "gguf", tmp_path / "merged.gguf", "f32")

    def cut(name: str, **settings) -> list[int]:
        return llama_cpp.Llama(str(tmp_path / name), vocab_only=True, verbose=False, **settings).tokenize(b"Say where.")

    told = [note for note in notes if "--override-kv" in note]
    assert (cut("base.gguf") == cut("merged.gguf")) == (override is None)
    assert bool(told) == (override is not None)
    if override is not None:
        key, value = override
        assert told[0].endswith(f" --override-kv {key}=bool:{str(value).lower()}.")
        assert cut("base.gguf", kv_overrides={key: value}) == cut("merged.gguf")


LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GEMMA_3 = {"tie_word_embeddings": True, "sliding_window": 8, "num_hidden_layers": 7, "layer_types": None}
NEAR = {"rope_type": "default", "rope_theta": 500.0}
FAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
FARTHER = {"full_attention": FAR, "sliding_attention": NEAR}
CHANGES = {
    "llama-3": ("llama", {"rope_parameters": LLAMA_3}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-wide-heads": ("llama", {"head_dim": 16}),
    "mistral": ("mistral", {"sliding_window": 80}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {"tie_word_embeddings": True}),
    "gemma2": ("gemma2", {"tie_word_embeddings": True, "sliding_window": 8}),
    "gemma3": ("gemma3_text", GEMMA_3),
    "gemma3-linear": ("gemma3_text", {**GEMMA_3, "rope_parameters": FARTHER}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_of_each_type_says_what_transformers_says(tmp_path, name):
    model_type, changes = CHANGES[name]
    ids = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 128}
    model = tiny_model(model_type, AutoModelForCausalLM, **ids, **changes)
    save_checkpoint(tmp_path / "base", model)
    export(str(tmp_path / "base"), "gguf", tmp_path / "model.gguf", "f32")
    assert difference(tmp_path / "model.gguf", model) <= (5e-3 if model_type.startswith("gemma") else 1e-4)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_fewer_bits_round_each_weight_as_their_format_does(tmp_path, llama_folder, dtype):
    export(str(llama_folder), "gguf", tmp_path / "model.gguf", dtype)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    stored = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.ffn_down.weight")
    found = torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type))
    weight = AutoModelForCausalLM.from_pretrained(llama_folder).model.layers[0].mlp.down_proj.weight.detach()
    if dtype == "q8_0":
        blocks = weight.reshape(weight.shape[0], -1, 32)
        step = blocks.abs().amax(-1, keepdim=True) / 127
        # The step itself is kept in float16.
        assert ((found.reshape(blocks.shape) - blocks).abs() <= step * (0.5 + 127 * 2**-11) + 1e-8).all()
    else:
        assert found.equal(weight.to({"f16": torch.float16, "bf16": torch.bfloat16}[dtype]).float())


def test_a_bfloat16_base_stays_bfloat16(tmp_path):
    export("tiny-gpt", "gguf", tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert {tensor.tensor_type.name for tensor in reader.tensors if tensor.name.startswith("token")} == {"BF16"}


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def cut_by(pattern: str):
    """A byte-level tokenizer that cuts text by a pattern first."""
    tokenizer = tiny_tokenizer()
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, spelled])
    return tokenizer


TOKENIZERS = {
    "builtin": lambda: find("tiny-gpt").tokenizer,
    "byte-level": tiny_tokenizer,
    "llama-3": lambda: cut_by(WORDS + r"\p{N}{1,3}" + REST),
    "qwen2": lambda: cut_by(WORDS + r"\p{N}" + REST),
    "sentence pieces": sentence_piece_tokenizer,
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_cuts_text_as_the_tokenizer_does(tmp_path, name):
    tokenizer = TOKENIZERS[name]()
    save_checkpoint(tmp_path / "base", tiny_llama(vocab_size=len(tokenizer) + 3), tokenizer)
    export(str(tmp_path / "base"), "gguf", tmp_path / "model.gguf", "f32")
    found = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    for text in TEXTS:
        assert found.tokenize(text.encode(), special=False) == tokenizer(text).input_ids
        assert found.detokenize(tokenizer(text, add_special_tokens=False).input_ids).decode().strip() == text


def test_what_ends_an_answer_and_the_chat_template_stand_in_the_file(tmp_path):
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer = tiny_tokenizer(chat_template=template)
    model = tiny_llama()
    model.generation_config.eos_token_id = [0, 5]
    save_checkpoint(tmp_path / "base", model, tokenizer)
    export(str(tmp_path / "base"), "gguf", tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    told = [reader.get_field(f"tokenizer.{key}").contents() for key in ("ggml.eos_token_id", "ggml.eot_token_id")]
    assert told == [0, 5]
    assert reader.get_field("tokenizer.chat_template").contents() == template


def test_wrong_weights_are_found_and_nothing_is_written(tmp_path, llama_folder, monkeypatch):
    monkeypatch.setattr(gguf_file, "laid_out", lambda name, tensor, *_: tensor)
    with pytest.raises(LorakitError, match="does not compute this model"):
        export(str(llama_folder), "gguf", tmp_path / "model.gguf", "f32")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_neither_file_nor_scratch(tmp_path, llama_folder, monkeypatch):
    folder = adapter(tmp_path / "adapter", llama_folder)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_file, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(str(folder), "gguf", tmp_path / "model.gguf", base=str(llama_folder))
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]


def foreign(kind, place, own):
    """Write a file that is not lorakit's."""
    if kind == "table":
        place.write_text("a,b\n")
    elif kind == "cut short":
        place.write_bytes(own.read_bytes()[:1000])
    else:
        writer = gguf.GGUFWriter(place, "llama")
        writer.add_name("somebody else's")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()


@pytest.mark.parametrize("kind", ["table", "cut short", "GGUF of another program"])
def test_force_replaces_a_gguf_that_lorakit_wrote_and_nothing_else(tmp_path, llama_folder, kind):
    for _ in range(2):
        export(str(llama_folder), "gguf", tmp_path / "model.gguf", force=True)
    foreign(kind, tmp_path / "theirs", tmp_path / "model.gguf")
    before = (tmp_path / "theirs").read_bytes()
    with pytest.raises(LorakitError, match="no GGUF file that lorakit wrote, so it is not replaced"):
        export(str(llama_folder), "gguf", tmp_path / "theirs", force=True)
    assert (tmp_path / "theirs").read_bytes() == before
