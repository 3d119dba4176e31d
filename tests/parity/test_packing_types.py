"""Which model types may be packed, measured; encoders under every head against each text alone without packing."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from lorakit import families
from lorakit.fast import varlen
from model_types import SHAPES, VOCABULARY, tiny_config, tiny_model

ENCODERS = [family.model_type for family in families.listed() if family.kind == "encoder"]
DECODERS = [family.model_type for family in families.listed() if family.kind == "decoder"]
PACKING = [family.model_type for family in families.listed() if family.kind == "encoder" and family.packs]
LENGTHS = (9, 13)


def texts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def packed_scores(model, family):
    positions = varlen.positions(LENGTHS)[None] + family.first_position
    with torch.no_grad():
        return model(input_ids=torch.cat(texts())[None], position_ids=positions, segment_lengths=LENGTHS)[0][0]


def plain_scores(model):
    with torch.no_grad():
        return torch.cat([model(input_ids=text[None])[0][0] for text in texts()])


@pytest.mark.parametrize(
    "auto",
    [AutoModelForMaskedLM, AutoModelForTokenClassification, AutoModelForQuestionAnswering, AutoModel],
    ids=lambda auto: auto.__name__,
)
@pytest.mark.parametrize("model_type", PACKING)
def test_packed_texts_score_as_each_alone_without_the_fast_path(model_type, auto):
    packed = packed_scores(tiny_model(model_type, auto, varlen.NAME), families.of(model_type))
    plain = plain_scores(tiny_model(model_type, auto, "eager"))
    assert torch.allclose(packed, plain, atol=1e-5)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_the_table_says_what_the_proof_at_the_start_of_a_run_finds(model_type):
    for auto in (AutoModelForMaskedLM, AutoModelForTokenClassification):
        said = varlen.proves_isolated(tiny_model(model_type, auto, varlen.NAME), layers=2, vocabulary=VOCABULARY)
        assert (said == "") == families.of(model_type).packs
        assert said == "" or said == "its attention does not go through the interface (0 calls for 2 layers)"


@pytest.mark.parametrize("model_type", DECODERS)
def test_the_table_says_so_of_decoders_too(model_type):
    try:
        model = tiny_model(model_type, AutoModelForCausalLM, varlen.NAME)
        said = varlen.proves_isolated(model, layers=2, vocabulary=VOCABULARY)
    except KeyError as problem:
        # gpt_neo chooses among its own classes by this name.
        said = f"refused: {problem}"
    assert (said == "") == families.of(model_type).packs


def test_the_words_of_a_model_that_scores_next_sentences_too_are_proved():
    model = tiny_model("bert", AutoModelForPreTraining, varlen.NAME)
    assert varlen.proves_isolated(model, layers=2, vocabulary=VOCABULARY) == ""


def test_a_model_that_scores_whole_rows_is_never_packed():
    model = tiny_model("bert", AutoModelForSequenceClassification, varlen.NAME)
    assert "of whole rows" in varlen.proves_isolated(model, layers=2, vocabulary=VOCABULARY)


def test_the_window_of_the_modernbert_above_hides_something():
    """Else the tests above would not notice a window that is ignored."""
    scores = [
        plain_scores(tiny_model("modernbert", AutoModelForMaskedLM, local_attention=window)) for window in (4, 64)
    ]
    assert not torch.allclose(*scores, atol=1e-2)


def test_an_encoder_sees_what_follows():
    """Else the tests above would not notice a mask that hides the future."""
    model = tiny_model("bert", AutoModelForMaskedLM, varlen.NAME)
    first, second = texts()
    changed = torch.cat([second[:-1], first[:1]])
    with torch.no_grad():
        scores = [model(input_ids=ids[None]).logits[0, 0] for ids in (second, changed)]
    assert not torch.allclose(*scores, atol=1e-3)


@pytest.mark.parametrize("model_type", SHAPES)
def test_positions_that_a_text_may_have_are_those_the_model_computes(model_type):
    family = families.of(model_type)
    auto = {"encoder": AutoModelForMaskedLM, "decoder": AutoModelForCausalLM}.get(family.kind)
    config = tiny_config(model_type)
    usable = families.of(model_type, (), config.to_dict()).usable_positions(config.to_dict())
    assert usable == (None if model_type in ("bloom", "deberta-v2", "t5", "mt5", "umt5", "longt5") else 64)
    if auto is None or usable is None or family.model_type in _ROTARY:
        return
    model = tiny_model(model_type, auto)
    with torch.no_grad():
        model(input_ids=torch.full((1, usable), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, usable + 1), 5))


_ROTARY = ("modernbert", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi")
"""Types that compute beyond the positions they were trained for."""
