"""Encoder-decoders are asked with the source framed as in training; models that read only are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import lorakit
from conftest import save_checkpoint
from lorakit.adapters.bundle import open_target
from lorakit.adapters.manifest import Manifest
from lorakit.errors import LorakitError
from lorakit.generation.settings import DecodingSettings
from lorakit.workflows.framing_sources import source_framing
from writers import bart_tokenizer, tiny_writer, unigram_tokenizer

TEXTS = ["the quick brown fox", "once upon a time", "한국어 문장", ""]


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    return save_checkpoint(
        tmp_path_factory.mktemp("writers") / "tiny-t5", tiny_writer("t5", vocab_size=300), unigram_tokenizer()
    )


@pytest.fixture(scope="module")
def bart_folder(tmp_path_factory):
    model = tiny_writer("bart", vocab_size=350, forced_eos_token_id=2)
    return save_checkpoint(tmp_path_factory.mktemp("writers") / "tiny-bart", model, bart_tokenizer())


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("folder", ["t5_folder", "bart_folder"])
def test_a_base_writes_what_transformers_writes(folder, beams, request):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = request.getfixturevalue(folder)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    found = lorakit.generate(folder, TEXTS, DecodingSettings(max_new_tokens=12, num_beams=beams))
    for text, answer in zip(TEXTS, found, strict=True):
        ids = torch.tensor([tokenizer(text).input_ids])
        written = model.generate(ids, do_sample=False, num_beams=beams, max_new_tokens=12)[0, 1:]
        assert list(answer.ids) == written.tolist()
        assert answer.text == tokenizer.decode(written, skip_special_tokens=True)


def trained(folder, **task):
    """Return the base as if it had been trained with these settings of its objective."""
    return replace(open_target(str(folder)), manifest=Manifest.model_construct(task=task))


def test_the_prefix_of_the_training_stands_before_each_source(t5_folder):
    target = trained(t5_folder, name="seq2seq_lm", prefix="answer: ")
    expected = target.tokenizer("answer: what is two").input_ids
    assert source_framing(target, raw=False)("what is two") == expected
    assert source_framing(target, raw=True)("what is two") == target.tokenizer("what is two").input_ids


def test_sentinels_are_meant_by_a_model_that_fills_gaps_and_are_text_elsewhere(t5_folder):
    sentinel = unigram_tokenizer().convert_tokens_to_ids("<extra_id_0>")
    text = "the <extra_id_0> fox </s> two"
    for target, meant in (
        (open_target(str(t5_folder)), True),
        (trained(t5_folder, name="span_corruption"), True),
        (trained(t5_folder, name="seq2seq_lm"), False),
    ):
        ids = source_framing(target, raw=False)(text)
        assert (sentinel in ids) == meant
        assert ids.count(target.tokenizer.eos_token_id) == 1


def test_messages_are_refused(t5_folder):
    with pytest.raises(LorakitError, match="no chat template"):
        lorakit.generate(t5_folder, [{"role": "user", "content": "two"}])


def test_an_encoder_is_sent_to_predict(tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    folder = save_checkpoint(tmp_path / "bert", BertForMaskedLM(BertConfig(vocab_size=400, **sizes)))
    with pytest.raises(LorakitError, match="a bert model reads, it does not write: use lorakit predict"):
        lorakit.generate(folder, "two")


def test_a_classifier_is_sent_to_predict(tmp_path):
    from transformers import T5Config, T5ForSequenceClassification

    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 4, "vocab_size": 300}
    model = T5ForSequenceClassification(T5Config(**sizes, decoder_start_token_id=0))
    folder = save_checkpoint(tmp_path / "labels", model, unigram_tokenizer())
    with pytest.raises(LorakitError, match="labels was trained for sequence_classification, not to write"):
        lorakit.generate(folder, "two")
