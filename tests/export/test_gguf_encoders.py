"""A BERT as a GGUF file gives the vectors and scores in llama.cpp that plain PEFT and plain transformers give."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    PreTrainedTokenizerFast,
)

from bundles import moved_adapter
from conftest import SENTENCES, save_checkpoint
from encoders import framing, with_old_names, written
from lorakit.adapters.export import gguf_file
from lorakit.adapters.export.gguf_charsmap import compiled
from lorakit.checkpoints import vocabularies
from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError
from lorakit.workflows.exporting import export
from lorakit.workflows.merging import merge
from model_types import tiny_model
from runs import train
from writers import unigram_tokenizer

REASON = "llama.cpp is not installed: pip install 'lorakit[export]'"
gguf = pytest.importorskip("gguf", reason=REASON)
llama_cpp = pytest.importorskip("llama_cpp", reason=REASON)

IDS_T = [2, *(4 + torch.arange(40) * 7 % 90).tolist(), 3]
TEXTS = (*SENTENCES, "It's 1031 = 1,024 + 7!  Two\n\nlines,\tand a tab; naïve 'quotes' 😀 漢字 Öl ÉCOLE")
BOUND = 5e-3
"""llama.cpp computes tanh's GELU, from a table of float16."""


def vectors(file: Path, ids_T=IDS_T, pools: bool = False, width: int = 32, pairs: Path | None = None) -> torch.Tensor:
    """Return what llama.cpp gives for each token, shape (T, D), or, `pools`, for the text, shape (width,)."""
    settings = {"embedding": True, "n_ctx": 64, "n_ubatch": 64, "n_threads": 1, "verbose": False}
    pooling = {} if pools else {"pooling_type": llama_cpp.LLAMA_POOLING_TYPE_NONE}
    found = llama_cpp.Llama(str(file), lora_path=pairs and str(pairs), **settings, **pooling)
    tokens = (llama_cpp.llama_token * len(ids_T))(*ids_T)
    assert llama_cpp.llama_encode(found.ctx, llama_cpp.llama_batch_get_one(tokens, len(ids_T))) == 0
    if pools:
        return torch.tensor(llama_cpp.llama_get_embeddings_seq(found.ctx, 0)[:width])
    return torch.tensor(llama_cpp.llama_get_embeddings(found.ctx)[: width * len(ids_T)]).reshape(len(ids_T), width)


def share(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


def states(model, ids_T=IDS_T) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids_T])).last_hidden_state[0]


def bert(folder: Path, auto=AutoModelForMaskedLM, tokenizer=None, **changes) -> Path:
    tokenizer = tokenizer or vocabularies.word_pieces(SENTENCES, 900, 64)
    return save_checkpoint(folder, tiny_model("bert", auto, vocab_size=len(tokenizer) + 3, **changes), tokenizer)


def encoder(folder: Path, model_type: str, auto=AutoModelForMaskedLM, **changes) -> Path:
    """A random encoder of any type, with a tokenizer of its kind."""
    if model_type == "bert":
        return bert(folder, auto, **changes)
    tokenizer = {"roberta": framing, "xlm-roberta": framed_pieces}[model_type]()
    ids = {"vocab_size": len(tokenizer) + 3, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return save_checkpoint(folder, tiny_model(model_type, auto, **ids, **changes), tokenizer)


def framed_pieces():
    """A tokenizer of SentencePiece's unigram, framed as that of XLM-RoBERTa."""
    tokenizer = unigram_tokenizer(sentinels=0)
    backend = tokenizer.backend_tokenizer
    pieces = [(piece, score) for piece, score in json.loads(backend.to_str())["model"]["vocab"][3:]]
    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    backend = Tokenizer(models.Unigram([*((name, 0.0) for name in names), *pieces], 3))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    spaces = {character.encode(): " " for character in "\t\n\r "}
    backend.normalizer = normalizers.Precompiled(compiled(spaces))
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    special = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), names, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def adapter(folder: Path, model, task: str | None, **settings) -> Path:
    """Train and save an adapter with plain PEFT; no manifest."""
    settings = {"target_modules": ["query", "key", "output.dense"], "r": 4, "lora_alpha": 16, **settings}
    return moved_adapter(folder, model, task_type=task, **settings)


VARIANTS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"query": 2}, "alpha_pattern": {"key": 64}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_vectors_of_an_adapter_in_llama_cpp_are_those_of_plain_peft(tmp_path, variant):
    base = bert(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", AutoModelForMaskedLM.from_pretrained(base), None, **VARIANTS[variant])
    done = export(str(folder), "gguf", tmp_path / "model.gguf", "f32", base=str(base))
    plain = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(base), folder).eval()
    assert share(vectors(tmp_path / "model.gguf"), states(plain.base_model.model.bert)) <= BOUND
    assert done.proof.compared == "numbers of vectors"
    assert abs(done.proof.loss_after - done.proof.loss_before) < 0.01


@pytest.mark.parametrize("variant", ["rslora", "patterns"])
def test_vectors_of_pairs_on_their_base_in_llama_cpp_are_those_of_plain_peft(tmp_path, variant):
    base = bert(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", AutoModelForMaskedLM.from_pretrained(base), None, **VARIANTS[variant])
    export(str(folder), "gguf-lora", tmp_path / "pairs.gguf", base=str(base))
    export(str(base), "gguf", tmp_path / "base.gguf", "f32")
    plain = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(base), folder).eval()
    found = vectors(tmp_path / "base.gguf", pairs=tmp_path / "pairs.gguf")
    assert share(found, states(plain.base_model.model.bert)) <= BOUND


ENCODERS = {
    "bert": ("bert", {}),
    "another activation": ("bert", {"hidden_act": "gelu_new"}),
    "one type of token": ("bert", {"type_vocab_size": 1}),
    "another norm": ("bert", {"layer_norm_eps": 0.1}),
    "roberta": ("roberta", {}),
    "xlm-roberta": ("xlm-roberta", {}),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_text_becomes_the_mean_of_the_vectors_that_transformers_gives(tmp_path, name):
    model_type, changes = ENCODERS[name]
    base = encoder(tmp_path / "base", model_type, **changes)
    export(str(base), "gguf", tmp_path / "model.gguf", "f32")
    expected_TD = states(AutoModel.from_pretrained(base))
    assert share(vectors(tmp_path / "model.gguf"), expected_TD) <= BOUND
    assert share(vectors(tmp_path / "model.gguf", pools=True), expected_TD.mean(0)) <= BOUND


def test_old_names_of_norms_are_known(tmp_path):
    base = bert(tmp_path / "base")
    expected_TD = states(AutoModel.from_pretrained(base))
    export(str(with_old_names(base)), "gguf", tmp_path / "model.gguf", "f32")
    assert share(vectors(tmp_path / "model.gguf"), expected_TD) <= BOUND


LABELS = ("north", "south", "centre")
PROBLEMS = {
    "one label": ("single_label_classification", LABELS),
    "several labels": ("multi_label_classification", LABELS),
    "a score": ("regression", ("score",)),
}


def labelled(problem: str, labels=LABELS) -> dict:
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    return {**names, "problem_type": problem}


@pytest.mark.parametrize(
    ("model_type", "name"),
    [*(("bert", name) for name in PROBLEMS), ("roberta", "one label"), ("xlm-roberta", "a score")],
)
def test_a_classifier_in_llama_cpp_gives_the_scores_of_transformers(tmp_path, model_type, name):
    problem, labels = PROBLEMS[name]
    base = encoder(tmp_path / "base", model_type, AutoModelForSequenceClassification, **labelled(problem, labels))
    export(str(base), "gguf", tmp_path / "model.gguf", "f32")
    with torch.inference_mode():
        expected_O = AutoModelForSequenceClassification.from_pretrained(base)(torch.tensor([IDS_T])).logits[0]
    assert share(vectors(tmp_path / "model.gguf", pools=True, width=len(labels)), expected_O) <= BOUND
    told = gguf.GGUFReader(tmp_path / "model.gguf").get_field("bert.classifier.output_labels").contents()
    assert (told if isinstance(told, list) else [told]) == list(labels)


def test_a_classifier_trained_on_a_base_that_fills_in_words_gives_its_scores(tmp_path):
    rows = [{"text": f"{name} lies in the {label}.", "label": label} for name in "ABCDEF" for label in LABELS]
    values = {"optim__learning_rate": 1e-2, "train__max_steps": 3}
    folder = train(tmp_path / "run", bert(tmp_path / "base"), written(tmp_path / "rows.jsonl", rows), **values).folder
    export(str(folder), "gguf", tmp_path / "model.gguf", "f32")
    merge(str(folder), tmp_path / "merged")
    with torch.inference_mode():
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
        expected_O = model(torch.tensor([IDS_T])).logits[0]
    assert share(vectors(tmp_path / "model.gguf", pools=True, width=3), expected_O) <= BOUND


def test_two_texts_that_are_told_apart_are_refused(tmp_path):
    rows = [{"text": name, "text_pair": f"to the {label}", "label": label} for name in "ABCDEF" for label in LABELS]
    values = {"optim__learning_rate": 1e-2, "train__max_steps": 1}
    folder = train(tmp_path / "run", bert(tmp_path / "base"), written(tmp_path / "rows.jsonl", rows), **values).folder
    with pytest.raises(LorakitError, match="this model tells two texts apart: use --to onnx"):
        export(str(folder), "gguf", tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def of_bert_itself(lowers: bool):
    pieces = vocabularies.word_pieces([text.lower() if lowers else text for text in SENTENCES], 900, 64).get_vocab()
    return BertTokenizer(vocab=pieces, do_lower_case=lowers)


TOKENIZERS = {
    "builtin": lambda: find("tiny-bert").tokenizer,
    "uncased": lambda: of_bert_itself(lowers=True),
    "cased": lambda: of_bert_itself(lowers=False),
}


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta"])
def test_llama_cpp_cuts_text_as_tokenizers_of_other_encoders_do(tmp_path, model_type):
    base = encoder(tmp_path / "base", model_type)
    export(str(base), "gguf", tmp_path / "model.gguf", "f32")
    found = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    tokenizer = AutoTokenizer.from_pretrained(base)
    for text in TEXTS:
        assert found.tokenize(text.encode(), special=False) == tokenizer(text).input_ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_cuts_text_as_the_tokenizer_does(tmp_path, name):
    tokenizer = TOKENIZERS[name]()
    done = export(str(bert(tmp_path / "base", tokenizer=tokenizer)), "gguf", tmp_path / "model.gguf", "f32")
    found = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    for text in TEXTS:
        given = text if name == "cased" else unicodedata.normalize("NFD", text)
        assert found.tokenize(given.encode(), special=False) == tokenizer(text).input_ids
    assert any("form NFD" in note for note in done.notes) == (name != "cased")


def test_rounded_vectors_lose_little(tmp_path):
    done = export("tiny-bert", "gguf", tmp_path / "model.gguf", "q8_0")
    assert done.proof.largest_difference < 0.05 * done.proof.largest_logit
    assert done.proof.same_text is None


def test_wrong_weights_are_found_and_nothing_is_written(tmp_path, monkeypatch):
    laid_out = gguf_file.laid_out

    def wrong(name, tensor, *rest):
        return laid_out(name, tensor, *rest) * (1.1 if "query" in name else 1.0)

    monkeypatch.setattr(gguf_file, "laid_out", wrong)
    with pytest.raises(LorakitError, match="does not compute this model"):
        export("tiny-bert", "gguf", tmp_path / "model.gguf", "f32")
    assert list(tmp_path.iterdir()) == []
