"""What is known of a model type: the table against real models, and what is found out outside it."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    BlenderbotConfig,
    CamembertConfig,
    StableLmConfig,
)

from conftest import save_checkpoint
from lorakit import families
from lorakit.checkpoints.finding import find
from lorakit.errors import CheckpointError
from lorakit.methods.targets import linear_layers
from lorakit.methods.trainable import blocks, stacks
from model_types import SHAPES, tiny_config, tiny_model

AUTO = {
    "encoder": AutoModelForMaskedLM,
    "decoder": AutoModelForCausalLM,
    "encoder_decoder": AutoModelForSeq2SeqLM,
}
ENCODER_DECODERS = [name for name in SHAPES if families.of(name).kind == "encoder_decoder"]


@pytest.mark.parametrize("model_type", SHAPES)
def test_the_table_finds_the_blocks_whatever_stands_on_them(model_type):
    family = families.of(model_type)
    for auto in (AUTO[family.kind], AutoModel):
        model = tiny_model(model_type, auto)
        expected = [1] if family.shares_blocks else [2, 2] if family.kind == "encoder_decoder" else [2]
        assert [len(stack) for stack in stacks(model, family)] == expected


@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5"])
def test_an_encoder_alone_has_one_stack(model_type):
    model = tiny_model(model_type, AutoModelForTokenClassification)
    assert [len(stack) for stack in stacks(model, families.of(model_type))] == [2]


@pytest.mark.parametrize("model_type", SHAPES)
def test_the_default_targets_are_the_linear_layers_of_the_blocks_and_no_other(model_type):
    family = families.of(model_type)
    model = tiny_model(model_type, AUTO[family.kind])
    inside = {module for block in blocks(model, family) for module in block.modules()}
    layers = linear_layers(model, family, [])
    targeted = {name for name in layers if any(name == end or name.endswith(f".{end}") for end in family.targets)}
    assert targeted == {name for name, module in layers.items() if module in inside}


@pytest.mark.parametrize("model_type", SHAPES)
def test_a_padding_id_moves_the_first_position_of_roberta_and_its_kin_alone(model_type):
    moved = model_type in ("roberta", "xlm-roberta")
    assert families.of(model_type, (), {"pad_token_id": 4}).first_position == (5 if moved else 0)
    assert families.of(model_type).first_position == (2 if moved else 0)


def test_relative_positions_of_deberta_bound_nothing_and_its_table_of_positions_does():
    family = families.of("deberta-v2")
    assert family.usable_positions({"max_position_embeddings": 512, "position_biased_input": False}) is None
    assert family.usable_positions({"max_position_embeddings": 512}) == 512


def test_t5_and_its_kin_never_run_in_fp16():
    assert [family.model_type for family in families.listed() if not family.fp16] == ["t5", "mt5", "umt5", "longt5"]


@pytest.mark.parametrize(
    ("model_type", "architectures", "kind"),
    [
        ("camembert", ("CamembertForMaskedLM",), "encoder"),
        ("camembert", ("CamembertForSequenceClassification",), "encoder"),
        ("camembert", (), "encoder"),
        ("camembert", ("CamembertForCausalLM",), "decoder"),
        ("stablelm", ("StableLmForSequenceClassification",), "decoder"),
        ("blenderbot", ("BlenderbotForConditionalGeneration",), "encoder_decoder"),
        ("m2m_100", ("M2M100Model",), "encoder_decoder"),
        ("one-that-nobody-knows", ("OneForCausalLM",), "decoder"),
    ],
)
def test_a_type_outside_the_table_is_told_by_its_class_or_by_what_transformers_has_of_it(
    model_type, architectures, kind
):
    family = families.of(model_type, architectures)
    assert (family.kind, family.listed, family.packs) == (kind, False, False)


@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, AutoModelForCausalLM], ids=["encoder", "decoder"])
def test_the_longest_text_of_a_type_outside_the_table_is_one_that_it_computes(auto):
    # Camembert counts its positions from behind the padding id, Stablelm's rotations have no end.
    config = CamembertConfig(**SMALL | {"pad_token_id": 3}, **PLAIN)
    if auto is AutoModelForCausalLM:
        config = StableLmConfig(**SMALL, **PLAIN, num_key_value_heads=4)
    model = auto.from_config(config)
    family = families.of(config.model_type, (type(model).__name__,), config.to_dict())
    longest = family.usable_positions(config.to_dict())
    assert longest in (60, 64)
    assert model(input_ids=torch.full((1, longest), 7)).logits.shape == (1, longest, 400)


def test_t5s_kin_outside_the_table_never_run_in_fp16_either():
    kin = families.of("switch_transformers", ("SwitchTransformersForConditionalGeneration",))
    assert (kin.listed, kin.fp16) == (False, False)
    assert families.of("blenderbot", ("BlenderbotForConditionalGeneration",)).fp16


def test_a_type_that_reads_no_text_is_refused():
    with pytest.raises(CheckpointError, match=r"'vit' cannot be trained.*ViTForImageClassification"):
        families.of("vit", ("ViTForImageClassification",))


SMALL = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "max_position_embeddings": 64}
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
OUTSIDE = {
    "an encoder": (AutoModelForMaskedLM, CamembertConfig(**SMALL, **PLAIN), 2),
    "a decoder": (AutoModelForCausalLM, StableLmConfig(**SMALL, **PLAIN, num_key_value_heads=4), 2),
    "an encoder-decoder": (
        AutoModelForSeq2SeqLM,
        BlenderbotConfig(
            **SMALL,
            d_model=32,
            encoder_layers=1,
            decoder_layers=3,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
        ),
        4,
    ),
}


@pytest.mark.parametrize("said", OUTSIDE)
def test_a_checkpoint_outside_the_table_is_opened_its_blocks_found_and_a_line_says_so(tmp_path, said):
    auto, config, count = OUTSIDE[said]
    torch.manual_seed(0)
    checkpoint = find(str(save_checkpoint(tmp_path / "base", auto.from_config(config))))
    assert checkpoint.notes == [
        f"local:base: model type {config.model_type!r} is not in the table of tested types; it is taken for {said}."
    ]
    assert len(blocks(checkpoint.load(), checkpoint.family)) == count


@pytest.mark.parametrize("model_type", SHAPES)
def test_the_shapes_of_the_tests_are_as_small_as_they_say(model_type):
    config = tiny_config(model_type)
    assert (config.num_hidden_layers, config.hidden_size) == (2, 32)
