"""Adapters in fewer bits: every reader gives the scores of the restored pair, plain PEFT reads it or refuses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import lorakit
from bundles import trained_run
from conftest import PAIRS, save_checkpoint, tiny_llama
from every_objective import CASES, Workshop
from lorakit.adapters.bundle import open_target
from lorakit.adapters.lora_file import read_lora_weights
from lorakit.adapters.manifest import read_manifest
from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError
from lorakit.methods.settings import LoraSettings
from runs import train, weights

IDS_BT = torch.arange(40).reshape(2, 20) * 7 % 400
WIDTHS = ("float32", "bf16", "int8", "int4")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A DoRA of a tiny Llama, in each width; alpha / rank is 2."""
    root = tmp_path_factory.mktemp("widths")
    base = save_checkpoint(root / "base", tiny_llama())
    trained_run(root / "run", find(str(base)), LoraSettings(rank=4, alpha=8.0, dora=True), "lora")
    for width in WIDTHS:
        lorakit.quantize(str(root / "run"), root / width, width)
    return root


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS_BT).logits


@pytest.mark.parametrize("width", WIDTHS)
def test_a_loaded_a_merged_and_a_packed_adapter_give_one_result_near_the_exact_one(root, tmp_path, width):
    found = logits(open_target(str(root / width)).load())
    exact, base = (logits(open_target(str(root / name)).load()) for name in ("run", "base"))
    bound = {"float32": 1e-6, "bf16": 0.01, "int8": 0.02, "int4": 0.25}[width]
    assert (found - exact).norm() <= bound * (exact - base).norm()
    lorakit.merge(str(root / width), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(merged), found, rtol=0, atol=1e-4)
    assert read_manifest(tmp_path / "merged").rounded is None
    lorakit.pack(str(root / width), tmp_path / "one.lora")
    assert torch.equal(logits(open_target(str(tmp_path / "one.lora"), base=str(root / "base")).load()), found)


@pytest.mark.parametrize("width", ["float32", "bf16"])
def test_plain_peft_reads_it(root, width):
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(root / "base"), root / width).eval()
    torch.testing.assert_close(logits(plain), logits(open_target(str(root / width)).load()), rtol=0, atol=1e-5)
    assert lorakit.check(str(root / width)).faults == 0


@pytest.mark.parametrize("width", ["int8", "int4"])
def test_plain_peft_refuses_it_and_the_check_and_the_card_say_how_to_get_a_pair(root, width):
    with pytest.raises(ValueError, match=r"Can't find weights|Repo id"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(root / "base"), str(root / width))
    found = lorakit.check(str(root / width))
    assert found.faults == 0
    assert "adapter quantize --to bf16" in found.looked[-1].told
    assert "adapter quantize THIS_FOLDER --to bf16" in (root / width / "README.md").read_text("utf-8")


@pytest.mark.parametrize("width", ["int8", "int4"])
def test_the_way_back_is_what_was_restored_bit_for_bit(root, tmp_path, width):
    lorakit.quantize(str(root / width), tmp_path / "back", "float32")
    expected = read_lora_weights(root / width)
    found = load_file(tmp_path / "back" / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert read_manifest(tmp_path / "back").rounded is None


def test_matrices_alone_are_rounded_and_lengths_of_dora_stay(root):
    before = weights(root / "run")
    kept = {name for name in before if before[name].dim() == 1}
    assert kept
    for width in ("bf16", "int8", "int4"):
        after = read_lora_weights(root / width)
        assert {name for name in before if torch.equal(before[name], after[name].float())} == kept


def test_info_tells_of_the_adapter_as_it_is_read_and_in_how_many_bits_it_lies(root):
    plain, small = lorakit.info(str(root / "run")), lorakit.info(str(root / "int4"))
    assert [(layer.name, layer.rank, layer.parameters) for layer in small.layers] == [
        (layer.name, layer.rank, layer.parameters) for layer in plain.layers
    ]
    assert small.manifest.rounded == "int4"
    assert small.bytes < plain.bytes


def test_an_adapter_in_few_bits_is_resized_and_trained_further(root, tmp_path):
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    lorakit.resize(str(root / "int8"), tmp_path / "cut", rank=1)
    assert read_manifest(tmp_path / "cut").rounded is None
    settings = {"objective": {"name": "causal_lm", "separator": " => "}, "optim__learning_rate": 1e-9}
    run = train(tmp_path / "more", root / "int8", data, **settings).folder
    before, after = read_lora_weights(root / "int8"), weights(run)
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-6) for name in before)


@pytest.mark.parametrize("case", ["labels-bert", "seq2seq_lm-t5", "labels-t5"])
def test_encoders_and_encoder_decoders_and_their_heads_are_restored(case, tmp_path):
    shop, chosen = Workshop.filled(tmp_path), CASES[case]
    settings = {"name": "lora", "rank": 4}
    run = train(tmp_path / "run", shop.model(chosen), shop.data(chosen), objective=chosen.objective, method=settings)
    lorakit.quantize(str(run.folder), tmp_path / "float32", "float32")
    lorakit.quantize(str(run.folder), tmp_path / "int8", "int8", data=str(shop.data(chosen)))
    before, after = weights(tmp_path / "float32"), read_lora_weights(tmp_path / "int8")
    assert before.keys() == after.keys()
    assert all((before[name] - after[name]).abs().max() <= before[name].abs().max() / 250 for name in before)
    assert lorakit.check(str(tmp_path / "int8")).faults == 0


def test_the_loss_of_the_rounded_adapter_is_that_of_the_one_it_restores_to(root, tmp_path, pairs_file):
    found = lorakit.quantize(str(root / "run"), tmp_path / "int4", "int4", data=str(pairs_file))
    back = lorakit.quantize(str(tmp_path / "int4"), tmp_path / "back", "float32", data=str(pairs_file))
    assert found.cost.after == pytest.approx(back.cost.after, rel=1e-6)
    assert found.cost.after != pytest.approx(found.cost.before[str(root / "run")], rel=1e-6)


def test_two_files_of_weights_are_refused(root, tmp_path):
    lorakit.quantize(str(root / "run"), tmp_path / "both", "int8")
    (tmp_path / "both" / "hashes.json").unlink()
    (tmp_path / "both" / "adapter_model.safetensors").write_bytes(
        (root / "run" / "adapter_model.safetensors").read_bytes()
    )
    with pytest.raises(LorakitError, match="move one of them elsewhere"):
        open_target(str(tmp_path / "both")).load()


def test_a_whole_model_is_not_stored_in_few_bits_and_the_message_says_what_to_do(root, tmp_path):
    with pytest.raises(LorakitError, match=r"no LoRA adapter.*adapter extract"):
        lorakit.quantize(str(root / "base"), tmp_path / "small", "int8")
