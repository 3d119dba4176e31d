"""What each method trains under other heads than a decoder's: classifiers, masked words, encoder-decoders."""

import pytest
import torch
from peft import PeftModelForQuestionAnswering
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from lorakit import families, methods
from lorakit.errors import TrainingError
from lorakit.methods.settings import FreezeSettings, FullSettings, HeadSettings, LoraSettings
from lorakit.types import Head
from model_types import tiny_model

AUTO = {
    "masked_lm": AutoModelForMaskedLM,
    "masked_lm_nsp": AutoModelForPreTraining,
    "seq2seq_lm": AutoModelForSeq2SeqLM,
    "sequence_classification": AutoModelForSequenceClassification,
    "token_classification": AutoModelForTokenClassification,
    "question_answering": AutoModelForQuestionAnswering,
}


def applied(settings, model_type, task, fresh=(), **changes):
    """The model after a method, and its names that learn, without what PEFT adds to them."""
    model = tiny_model(model_type, AUTO[task], **changes)
    model, trainable = methods.load(settings.name)(model, settings, families.of(model_type), Head(task), fresh)
    return model, trainable, {name.removeprefix("base_model.model.") for name in trainable.names}


def owners(names):
    """First parts of names: what stands on the backbone, and the backbone itself."""
    return {name.split(".")[0] for name in names}


HEADS = {
    ("bert", "sequence_classification"): {"classifier"},
    ("roberta", "sequence_classification"): {"classifier"},
    ("distilbert", "sequence_classification"): {"pre_classifier", "classifier"},
    ("deberta-v2", "sequence_classification"): {"pooler", "classifier"},
    ("modernbert", "token_classification"): {"head", "classifier"},
    ("gpt2", "sequence_classification"): {"score"},
    ("llama", "token_classification"): {"score"},
    ("t5", "sequence_classification"): {"classification_head"},
    ("t5", "token_classification"): {"classifier"},
    ("t5", "question_answering"): {"qa_outputs"},
    ("bart", "question_answering"): {"qa_outputs"},
}
"""Of each type, what its authors' class puts on the backbone for a task."""


@pytest.mark.parametrize(("model_type", "task"), HEADS)
def test_the_linear_probe_of_a_classifier_is_all_that_stands_on_the_backbone(model_type, task):
    _, _, names = applied(HeadSettings(), model_type, task)
    assert owners(names) == HEADS[model_type, task]


@pytest.mark.parametrize(("model_type", "task"), HEADS)
def test_lora_trains_and_saves_a_classifier_whole(model_type, task):
    from peft import get_peft_model_state_dict

    model, _, names = applied(LoraSettings(rank=2), model_type, task)
    whole = {name for name in names if ".lora_" not in name}
    assert owners(whole) == HEADS[model_type, task]
    saved = [name for name in get_peft_model_state_dict(model) if ".lora_" not in name]
    assert owners(name.removeprefix("base_model.model.") for name in saved) == HEADS[model_type, task]


@pytest.mark.parametrize("targets", [None, "all-linear", ["dense"]])
def test_pairs_lie_beside_the_matrices_of_the_blocks_and_never_beside_a_pooler_or_head(targets):
    for task in ("sequence_classification", "masked_lm_nsp"):
        _, _, names = applied(LoraSettings(rank=2, targets=targets), "bert", task)
        adapted = {name.split(".lora_")[0] for name in names if ".lora_" in name}
        layers = {"attention.output.dense", "intermediate.dense", "output.dense"}
        if targets != ["dense"]:
            layers |= {"attention.self.query", "attention.self.key", "attention.self.value"}
        assert adapted == {f"bert.encoder.layer.{block}.{layer}" for block in range(2) for layer in layers}


def test_pairs_of_a_t5_lie_beside_plain_or_gated_layers_as_it_has_them():
    for model_type, inner in (("t5", {"wi"}), ("mt5", {"wi_0", "wi_1"})):
        _, _, names = applied(LoraSettings(rank=2), model_type, "seq2seq_lm")
        assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names} == {"q", "k", "v", "o", "wo"} | inner


FRESH_POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")


@pytest.mark.parametrize(
    "settings",
    [
        FullSettings(),
        FreezeSettings(),
        FreezeSettings(blocks=2),
        FreezeSettings(patterns=["*.encoder.*", "classifier*", "*pooler*"]),
        HeadSettings(),
        LoraSettings(rank=2),
    ],
    ids=str,
)
def test_what_the_checkpoint_did_not_bring_always_learns(settings):
    _, _, names = applied(settings, "bert", "sequence_classification", FRESH_POOLER)
    plain = {name.replace(".modules_to_save.default", "") for name in names}
    assert set(FRESH_POOLER) <= plain
    if settings.name == "lora":
        assert {name for name in plain if ".lora_" not in name} == set(FRESH_POOLER)


def test_new_layers_for_masked_words_are_saved_and_the_bias_of_the_tied_output_is_told():
    fresh = tuple(f"cls.predictions.{name}" for name in ("bias", "transform.dense.weight", "transform.LayerNorm.bias"))
    _, trainable, names = applied(LoraSettings(rank=2), "bert", "masked_lm", fresh)
    whole = {name.split(".modules_to_save")[0] for name in names if ".lora_" not in name}
    assert whole == {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"}
    assert trainable.notes[0].startswith("cls.predictions.bias is new and stays as it is")


def test_the_probe_of_masked_words_is_the_output_layer_untied_and_that_of_next_sentences_besides():
    for task, more in (("masked_lm", set()), ("masked_lm_nsp", {"cls.seq_relationship.weight"})):
        model, trainable, names = applied(HeadSettings(), "bert", task)
        assert {name for name in names if name.endswith("weight")} == {"cls.predictions.decoder.weight"} | more
        assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
        assert "3,072 weights more" in trainable.notes[0]


def test_a_umt5_whose_output_layer_is_untied_still_scales_its_states():
    model = tiny_model("umt5", AutoModelForSeq2SeqLM)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(input_ids=ids, decoder_input_ids=ids).logits
        model, _ = methods.load("head")(model, HeadSettings(), families.of("umt5"), Head("seq2seq_lm"), ())
        assert torch.equal(model(input_ids=ids, decoder_input_ids=ids).logits, before)


def frozen(settings, model_type, task="seq2seq_lm", **changes):
    model, trainable, _ = applied(settings, model_type, task, **changes)
    return {name for name, weight in model.named_parameters() if not weight.requires_grad}, model, trainable


BART_EMBEDDINGS = {"shared", "encoder.embed_positions", "encoder.layernorm_embedding"} | {
    f"decoder.{name}" for name in ("embed_positions", "layernorm_embedding")
}


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (0, set()),
        (1, {"encoder.layers.0"}),
        (2, {"encoder.layers.0", "encoder.layers.1"}),
        (None, {"encoder.layers.0", "encoder.layers.1"}),
        (3, {"encoder.layers.0", "encoder.layers.1", "decoder.layers.0"}),
    ],
)
def test_blocks_of_an_encoder_decoder_count_the_encoder_first(blocks, expected):
    names, _, _ = frozen(FreezeSettings(blocks=blocks), "bart")
    parts = BART_EMBEDDINGS | expected
    assert {part for part in parts if any(name.startswith(f"model.{part}.") for name in names)} == parts
    assert all(any(name.startswith(f"model.{part}.") for part in parts) for name in names)


def test_all_blocks_of_the_encoder_freeze_its_last_norm_too():
    for blocks, expected in ((1, False), (2, True), (3, True)):
        names, _, _ = frozen(FreezeSettings(blocks=blocks), "t5")
        assert ("encoder.final_layer_norm.weight" in names) == expected


def test_the_word_encoder_freezes_the_embeddings_and_the_whole_encoder():
    names, model, trainable = frozen(FreezeSettings(blocks="encoder"), "t5")
    assert names == {name for name, _ in model.named_parameters() if name.startswith(("encoder.", "shared."))}
    assert trainable.notes == ("the output layer is tied to the embeddings, so it is frozen with them",)


def test_the_word_decoder_freezes_the_decoder_with_the_embeddings_it_shares():
    names, model, _ = frozen(FreezeSettings(blocks="decoder"), "bart")
    assert names == {name for name, _ in model.named_parameters() if ".decoder." in name or ".shared." in name}


def test_the_last_norm_of_an_opt_learns_though_it_is_registered_before_the_blocks():
    from transformers import AutoModelForCausalLM

    model = tiny_model("opt", AutoModelForCausalLM)
    _, trainable = methods.load("freeze")(model, FreezeSettings(blocks=2), families.of("opt"))
    assert set(trainable.names) == {f"model.decoder.final_layer_norm.{name}" for name in ("weight", "bias")}


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "electra", "deberta-v2", "modernbert"])
def test_frozen_blocks_of_an_encoder_take_all_that_feeds_them(model_type):
    """Else gradients would run through the frozen blocks down to what lies below."""
    model, _, names = applied(FreezeSettings(blocks=2), model_type, "token_classification")
    backbone = {name for name in names if name.startswith(model.base_model_prefix)}
    assert backbone <= {"model.final_norm.weight"}


@pytest.mark.parametrize("blocks", [0, 2, None])
def test_an_albert_is_frozen_in_all_blocks_or_none(blocks):
    _, trainable, names = applied(FreezeSettings(blocks=blocks), "albert", "token_classification")
    assert any("albert_layers" in name for name in names) == (blocks != 2)
    assert ("no half of them" in " ".join(trainable.notes)) == (blocks is None)


FAULTS = {
    "albert": (FreezeSettings(blocks=1), "albert", "masked_lm", "the 2 blocks of albert share their weights"),
    "albert too many": (FreezeSettings(blocks=3), "albert", "masked_lm", "this model has 2 blocks"),
    "no encoder": (FreezeSettings(blocks="encoder"), "bert", "masked_lm", "no encoder of its own; .*0 to 2"),
    "no decoder": (FreezeSettings(blocks="decoder"), "t5", "token_classification", "no decoder of its own"),
    "too many": (FreezeSettings(blocks=5), "t5", "seq2seq_lm", "method.blocks is 5; this model has 4 blocks"),
    "all tied": (FreezeSettings(blocks=4), "bart", "seq2seq_lm", "no weight would learn: everything is frozen"),
    "a head": (LoraSettings(targets=["classifier"]), "bert", "token_classification", "'classifier' matches no linear"),
    "a pooler": (LoraSettings(targets=["pooler.dense"]), "bert", "sequence_classification", "matches no linear layer"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_method_that_does_not_fit_says_why(case):
    settings, model_type, task, said = FAULTS[case]
    with pytest.raises(TrainingError, match=said):
        applied(settings, model_type, task)


def test_constants_are_no_weights():
    """Marian computes its positions; trained, they would be lost when the model is stored."""
    for settings in (FullSettings(), FreezeSettings(blocks=0)):
        names, _, _ = frozen(settings, "marian")
        assert {f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")} <= names


def test_token_types_reach_a_model_that_finds_answers():
    """They get lost in PEFT's own wrapper for this task, which is why it is not taken."""
    model, _, _ = applied(LoraSettings(rank=2), "bert", "question_answering")
    model.eval()
    ids = torch.tensor([[1, 5, 6, 2, 7, 8, 2]])
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    plain = tiny_model("bert", AutoModelForQuestionAnswering)
    with torch.no_grad():
        assert torch.equal(
            model(input_ids=ids, token_type_ids=types).start_logits,
            plain(input_ids=ids, token_type_ids=types).start_logits,
        )
        wrapped = PeftModelForQuestionAnswering(plain, model.peft_config["default"])
        assert not torch.allclose(
            wrapped(input_ids=ids, token_type_ids=types).start_logits,
            model(input_ids=ids, token_type_ids=types).start_logits,
        )


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_dropout_is_silenced_in_frozen_blocks_of_the_encoder_and_kept_in_the_decoder(model_type):
    from lorakit.methods.trainable import silence_frozen, stacks

    _, model, _ = frozen(FreezeSettings(), model_type)
    silence_frozen(model, families.of(model_type))
    found = [
        {part.p for part in stack.modules() if isinstance(part, torch.nn.Dropout)}
        | {value for part in stack.modules() for name, value in vars(part).items() if name == "dropout"}
        for stack in stacks(model, families.of(model_type))
    ]
    assert {value for value in found[0] if isinstance(value, float)} == {0.0}
    assert {value for value in found[1] if isinstance(value, float)} - {0.0} == {0.1}
