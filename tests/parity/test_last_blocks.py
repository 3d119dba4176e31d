"""Pairs in the last blocks alone: which blocks those are, and that plain PEFT opens them with the same scores."""

import json

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from conftest import save_checkpoint, tiny_gpt2
from encoders import encoder_folder
from every_objective import ROWS, save_bart
from lorakit import families, methods
from lorakit.adapters.bundle import open_target
from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError, TrainingError
from lorakit.methods.settings import LoraSettings
from lorakit.types import Head
from model_types import SHAPES, tiny_model
from runs import train
from writers import tiny_writer, unigram_tokenizer

LAST = {"method__name": "lora", "method__rank": 4, "method__last_blocks": 1, "optim__learning_rate": 1e-2}


def gpt(folder):
    return save_checkpoint(folder, tiny_gpt2(n_layer=3))


def bert(folder):
    return encoder_folder(folder, "AutoModel", num_hidden_layers=3)


def t5(folder):
    """Its encoder has a block of the same number as the decoder's last."""
    tokenizer = unigram_tokenizer()
    shape = {"vocab_size": len(tokenizer), "num_layers": 3, "num_decoder_layers": 3, "initializer_factor": 1.0}
    return save_checkpoint(folder, tiny_writer("t5", **shape), tokenizer)


def table(folder, rows):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


CASES = {
    "gpt2": (gpt, "pairs", "AutoModelForCausalLM", "transformer.h.2."),
    "bert": (bert, "labelled", "AutoModelForSequenceClassification", "bert.encoder.layer.2."),
    "t5": (t5, "translations", "AutoModelForSeq2SeqLM", "decoder.block.2."),
    "bart": (save_bart, "translations", "AutoModelForSeq2SeqLM", "model.decoder.layers.1."),
}


@pytest.mark.parametrize("case", CASES)
def test_plain_peft_opens_them_with_the_same_scores(tmp_path, case):
    make, rows, auto, block = CASES[case]
    base = make(tmp_path / "base")
    result = train(tmp_path / "run", base, table(tmp_path, ROWS[rows]), data__eval_rows=2, **LAST)
    adapted = {name for name in result.prepared.built.trainable.names if ".lora_" in name}
    assert adapted
    assert all(name.startswith(f"base_model.model.{block}") for name in adapted)
    labels = {"num_labels": 3} if rows == "labelled" else {}
    plain_base = getattr(transformers, auto).from_pretrained(base, dtype=torch.float32, **labels)
    plain = PeftModel.from_pretrained(plain_base, str(result.folder)).eval()
    ids = {"input_ids": torch.randint(5, 50, (1, 12), generator=torch.Generator().manual_seed(0))}
    ids |= {"decoder_input_ids": ids["input_ids"][:, :7]} if rows == "translations" else {}
    with torch.no_grad():
        found, own = plain(**ids).logits, open_target(str(result.folder)).load()(**ids).logits
        plain.base_model.disable_adapter_layers()
        assert not torch.allclose(plain(**ids).logits, found, atol=1e-5)
    assert torch.equal(found, own)


HEADS = {
    "encoder": ("AutoModelForMaskedLM", "masked_lm"),
    "decoder": ("AutoModelForCausalLM", "causal_lm"),
    "encoder_decoder": ("AutoModelForSeq2SeqLM", "seq2seq_lm"),
}


@pytest.mark.parametrize("model_type", [kind for kind in SHAPES if kind != "albert"])
def test_of_every_type_the_last_block_alone_is_adapted(model_type):
    family = families.of(model_type)
    auto, task = HEADS[family.kind]
    model = tiny_model(model_type, getattr(transformers, auto))
    _, trainable = methods.load("lora")(model, LoraSettings(rank=2, last_blocks=1), family, Head(task))
    adapted = [name for name in trainable.names if ".lora_" in name]
    assert adapted
    assert all(f".{family.blocks[-1]}.1." in name for name in adapted)


@pytest.mark.parametrize(
    ("model_type", "count", "told"),
    [
        ("gpt2", 3, r"method\.last_blocks is 3; this model has 2 blocks, so 1 to 2"),
        ("t5", 3, r"method\.last_blocks is 3; this decoder has 2 blocks, so 1 to 2"),
        ("albert", 1, "the blocks of albert share their weights"),
    ],
)
def test_what_cannot_be_counted_is_refused(model_type, count, told):
    auto = {"gpt2": "AutoModelForCausalLM", "t5": "AutoModelForSeq2SeqLM", "albert": "AutoModelForMaskedLM"}
    model = tiny_model(model_type, getattr(transformers, auto[model_type]))
    with pytest.raises(TrainingError, match=told):
        methods.load("lora")(model, LoraSettings(last_blocks=count), families.of(model_type))


def test_they_are_gone_on_from_in_the_same_blocks(tmp_path):
    base, data = gpt(tmp_path / "base"), table(tmp_path, ROWS["pairs"])
    first = train(tmp_path / "first", base, data, **LAST)
    second = train(tmp_path / "second", first.folder, data)
    assert second.prepared.built.trainable.names == first.prepared.built.trainable.names
    with pytest.raises(LorakitError, match="last_blocks: 1 there, 2 here"):
        train(tmp_path / "third", first.folder, data, **{**LAST, "method__last_blocks": 2})


def by_plain_peft(folder, numbers):
    """An adapter without a manifest, of a base whose name is followed."""
    model = transformers.AutoModelForCausalLM.from_pretrained(find("tiny-gpt").folder)
    config = LoraConfig(
        r=4, target_modules=["c_attn"], layers_to_transform=numbers, task_type="CAUSAL_LM", fan_in_fan_out=True
    )
    wrapped = get_peft_model(model, config)
    wrapped.peft_config["default"].base_model_name_or_path = "builtin:tiny-gpt"
    wrapped.save_pretrained(folder)
    return folder


def test_an_adapter_of_plain_peft_in_the_last_blocks_is_gone_on_from(tmp_path):
    last = find("tiny-gpt").config["n_layer"] - 1
    foreign = by_plain_peft(tmp_path / "foreign", [last - 1, last])
    result = train(tmp_path / "run", foreign, table(tmp_path, ROWS["pairs"]), train__max_steps=1)
    assert result.prepared.loaded.recipe.method.last_blocks == 2


def test_an_adapter_of_plain_peft_in_other_blocks_is_refused(tmp_path):
    foreign = by_plain_peft(tmp_path / "foreign", [0, 2])
    with pytest.raises(LorakitError, match="adapts other layers than a method of its settings would"):
        train(tmp_path / "run", foreign, table(tmp_path, ROWS["pairs"]), train__max_steps=1)
