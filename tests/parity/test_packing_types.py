"""Which model types may be packed, measured; encoders under every head against each text alone without packing."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from lorakit import families
from lorakit.fast import relative, varlen
from lorakit.fast.isolation import proves_isolated
from lorakit.fast.pooling import pooled
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
        return model(
            input_ids=torch.cat(texts())[None], position_ids=positions, segment_lengths={sum(LENGTHS): LENGTHS}
        )[0][0]


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
        said = proves_isolated(tiny_model(model_type, auto, varlen.NAME))
        assert (said == "") == families.of(model_type).packs
        assert said == "" or said == "its attention does not go through the interface (0 calls for 2 layers)"


@pytest.mark.parametrize("model_type", DECODERS)
def test_the_table_says_so_of_decoders_too(model_type):
    try:
        model = tiny_model(model_type, AutoModelForCausalLM, varlen.NAME)
        said = proves_isolated(model)
    except KeyError as problem:
        # gpt_neo chooses among its own classes by this name.
        said = f"refused: {problem}"
    assert (said == "") == families.of(model_type).packs


def test_the_words_of_a_model_that_scores_next_sentences_too_are_proved():
    model = tiny_model("bert", AutoModelForPreTraining, varlen.NAME)
    assert proves_isolated(model) == ""


def test_a_head_that_scores_whole_rows_is_not_taken_for_one_that_scores_positions():
    model = tiny_model("bert", AutoModelForSequenceClassification, varlen.NAME)
    assert "of whole rows" in proves_isolated(model)


@pytest.mark.parametrize("model_type", [*PACKING, *(name for name in DECODERS if families.of(name).packs)])
def test_a_packed_classifier_scores_each_text_as_alone_without_the_fast_path(model_type):
    auto, family = AutoModelForSequenceClassification, families.of(model_type)
    positions = varlen.positions(LENGTHS)[None] + family.first_position
    packed = {"input_ids": torch.cat(texts())[None], "position_ids": positions}
    model = tiny_model(model_type, auto, varlen.NAME)
    assert proves_isolated(model, family) == ""
    with torch.no_grad(), pooled(model, family, LENGTHS) as scored:
        found = scored(model(**packed, segment_lengths={sum(LENGTHS): LENGTHS}))
    plain = tiny_model(model_type, auto, "eager")
    with torch.no_grad():
        expected = torch.cat([plain(input_ids=text[None]).logits for text in texts()])
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_head_that_reads_the_mean_of_all_states_is_not_packed():
    config = tiny_config("modernbert")
    config.classifier_pooling = "mean"
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=varlen.NAME).eval()
    assert proves_isolated(model, families.of("modernbert")).startswith("packed and single rows differ by")


RELATIVE = [family.model_type for family in families.listed() if family.kind == "encoder_decoder" and family.packs]


@pytest.mark.parametrize("model_type", RELATIVE)
def test_packed_sources_and_targets_score_as_each_pair_alone_without_the_fast_path(model_type):
    targets = [text.flip(0)[:length] for text, length in zip(texts(), (4, 7), strict=True)]
    segments = {sum(LENGTHS): LENGTHS, 11: (4, 7)}
    packed = {"input_ids": torch.cat(texts())[None], "decoder_input_ids": torch.cat(targets)[None]}
    model = tiny_model(model_type, AutoModelForSeq2SeqLM, varlen.NAME)
    plain = tiny_model(model_type, AutoModelForSeq2SeqLM, "eager")
    pairs = zip(texts(), targets, strict=True)
    with torch.no_grad():
        expected = torch.cat(
            [plain(input_ids=text[None], decoder_input_ids=target[None])[0][0] for text, target in pairs]
        )
        whole = model(**packed, segment_lengths=segments)[0][0]
        relative.prepare(model)
        small = model(**packed, segment_lengths=segments)[0][0]
    bound = 1e-5 * float(expected.abs().max())
    assert torch.allclose(whole, expected, rtol=0, atol=bound)
    assert torch.allclose(small, expected, rtol=0, atol=bound)


def test_a_relative_bias_is_as_large_as_the_longest_segment():
    model = tiny_model("t5", AutoModelForSeq2SeqLM, varlen.NAME)
    relative.prepare(model)
    made = []
    for module in model.modules():
        if getattr(module, "has_relative_attention_bias", False):
            module.register_forward_hook(lambda _, __, output: made.append(tuple(output[1].shape[2:])))
    ids = torch.cat(texts())[None]
    with torch.no_grad():
        model(input_ids=ids, decoder_input_ids=ids[:, :11], segment_lengths={22: LENGTHS, 11: (4, 7)})
    assert made == [(13, 13), (7, 7)]


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


_ROTARY = ("modernbert", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi")
"""Types that compute beyond the positions they were trained for."""
