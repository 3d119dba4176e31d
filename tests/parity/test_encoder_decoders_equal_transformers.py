"""Encoder-decoders write what transformers' own `generate` writes, alone and side by side."""

from __future__ import annotations

import pytest
import torch

from lorakit.errors import LorakitError
from lorakit.generation.beams import beam_search
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings
from writers import TYPES, tiny_writer, unigram_tokenizer

SOURCES = [[5, 17, 100, 33, 1], [8, 9, 33, 41, 7, 90, 30, 11, 1], [11, 1], [50, 3, 9, 9, 12, 30, 31, 44, 71, 90, 13, 1]]


def by_transformers(model, source, eos_ids, **options) -> list[int]:
    ids = torch.tensor([source])
    ends = {"eos_token_id": list(eos_ids) or None}
    written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **ends, **options)
    return written[0, 1:].tolist()


@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("model_type", TYPES)
def test_greedy_ids_equal_those_of_transformers_side_by_side(model_type, penalty):
    model = tiny_writer(model_type)
    options = {"max_new_tokens": 16, "repetition_penalty": penalty}
    eos_ids = range(1, 9)
    found = decode(model, SOURCES, DecodingSettings(**options), eos_ids)
    assert [list(answer.ids) for answer in found] == [
        by_transformers(model, source, eos_ids, **options) for source in SOURCES
    ]


@pytest.mark.parametrize("model_type", TYPES)
def test_the_models_above_write_what_their_sources_say(model_type):
    # Guards the parity cases: an answer that ignores its source would be equal to anything.
    answers = decode(tiny_writer(model_type), SOURCES, DecodingSettings(max_new_tokens=16, repetition_penalty=1.7), ())
    assert len({answer.ids for answer in answers}) >= 3


@pytest.mark.parametrize("ends", [1, 20])
@pytest.mark.parametrize("model_type", TYPES)
def test_the_beam_kept_equals_that_of_transformers(model_type, ends):
    model = tiny_writer(model_type)
    options = {"max_new_tokens": 12, "num_beams": 3}
    eos_ids = range(1, 1 + ends)
    for source in SOURCES[:2]:
        found = beam_search(model, source, DecodingSettings(**options), eos_ids)
        assert list(found.ids) == by_transformers(model, source, eos_ids, **options)


RULES = {
    "bad_words_ids": [[119], [20], [21, 22]],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 2,
    "suppress_tokens": [30, 31, 32],
    "begin_suppress_tokens": [40, 41],
}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("model_type", ["t5", "bart", "mbart", "marian"])
def test_what_the_checkpoint_forbids_and_forces_is_honoured(model_type, beams):
    model = tiny_writer(model_type)
    for name, value in RULES.items():
        setattr(model.generation_config, name, value)
    settings = DecodingSettings(max_new_tokens=10, num_beams=beams)
    for source in SOURCES:
        if beams == 1:
            (found,) = decode(model, [source], settings, [2])
        else:
            found = beam_search(model, source, settings, [2])
        assert list(found.ids) == by_transformers(model, source, [2], max_new_tokens=10, num_beams=beams)
        assert found.ids[0] == 9
        assert found.ids[-1] == 2


def first_choices(model) -> list[int]:
    return [answer.ids[0] for answer in decode(model, SOURCES, DecodingSettings(max_new_tokens=1), ())]


def test_forbidden_ids_are_written_where_nothing_forbids_them():
    # Guards the case above: each rule changes something.
    model = tiny_writer("bart")
    chosen = first_choices(model)
    model.generation_config.suppress_tokens = sorted(set(chosen))
    assert not set(first_choices(model)) & set(chosen)


def test_what_may_not_begin_an_answer_may_stand_within():
    model = tiny_writer("mt5")
    begun = first_choices(model)
    model.generation_config.begin_suppress_tokens = sorted(set(begun))
    for source in SOURCES:
        (found,) = decode(model, [source], DecodingSettings(max_new_tokens=12), ())
        assert list(found.ids) == by_transformers(model, source, (), max_new_tokens=12)
        assert found.ids[0] not in begun


def test_an_answer_is_a_text_of_its_own():
    model, tokenizer = tiny_writer("mt5", vocab_size=300), unigram_tokenizer()
    word = tokenizer.convert_tokens_to_ids("▁the")
    # Were the answer joined to what the decoder begins with, its first space would stay.
    model.generation_config.decoder_start_token_id = word
    model.generation_config.forced_bos_token_id = word
    for answer in decode(model, SOURCES, DecodingSettings(max_new_tokens=6), (), tokenizer):
        assert answer.text == tokenizer.decode(answer.ids, skip_special_tokens=True)
        assert answer.text.startswith("the")


@pytest.mark.parametrize("model_type", TYPES)
def test_samples_side_by_side_are_those_of_each_source_alone(model_type):
    model = tiny_writer(model_type)
    settings = DecodingSettings(max_new_tokens=8, temperature=1.0, top_p=0.9, num_samples=2, seed=3)
    together = decode(model, SOURCES, settings, range(1, 9))
    alone = [
        answer
        for number, source in enumerate(SOURCES)
        for answer in decode(model, [source], settings, range(1, 9), numbers=[number])
    ]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]


@pytest.mark.parametrize("model_type", TYPES)
def test_the_log_probability_is_that_of_one_plain_forward(model_type):
    model = tiny_writer(model_type)
    (written,) = decode(model, SOURCES[:1], DecodingSettings(max_new_tokens=8), ())
    start = model.generation_config.decoder_start_token_id
    with torch.inference_mode():
        read = torch.tensor([[start, *written.ids[:-1]]])
        scores = model(input_ids=torch.tensor(SOURCES[:1]), decoder_input_ids=read).logits[0].double().log_softmax(-1)
    expected = scores.gather(1, torch.tensor(written.ids)[:, None]).sum()
    assert written.log_probability == pytest.approx(float(expected), abs=1e-3)


def test_the_encoder_runs_once():
    model = tiny_writer("t5")
    runs = []
    model.get_encoder().register_forward_hook(lambda *_: runs.append(1))
    decode(model, SOURCES, DecodingSettings(max_new_tokens=5, num_samples=2, temperature=1.0), ())
    assert len(runs) == 1


def test_an_answer_ends_with_the_decoders_last_position():
    model = tiny_writer("bart", max_position_embeddings=16)
    (written,) = decode(model, SOURCES[:1], DecodingSettings(max_new_tokens=40), ())
    assert written.finish_reason == "context"
    assert len(written.ids) == 16


def test_a_source_longer_than_the_positions_is_refused():
    with pytest.raises(LorakitError, match="has 17 tokens, but this model reads at most 16"):
        decode(tiny_writer("bart", max_position_embeddings=16), [[5] * 17], DecodingSettings(), ())


def test_a_model_that_says_no_start_is_refused():
    model = tiny_writer("t5", decoder_start_token_id=None)
    model.generation_config.decoder_start_token_id = None
    with pytest.raises(LorakitError, match="decoder_start_token_id"):
        decode(model, SOURCES, DecodingSettings(), ())
