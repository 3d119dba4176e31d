"""Resized adapters in plain PEFT: whatever an adapter holds, nothing of it is lost, and full rank changes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bundles import trained_run
from conftest import PAIRS, save_checkpoint, tiny_gpt2, tiny_llama
from every_objective import CASES, Workshop
from lorakit.adapters.bundle import open_target
from lorakit.adapters.manifest import read_manifest
from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError
from lorakit.methods.settings import LoraSettings
from lorakit.workflows.generating import generate
from lorakit.workflows.merging import merge
from lorakit.workflows.surgery import resize
from runs import train, weights

IDS_BT = torch.arange(40).reshape(2, 20) * 7 % 400


@dataclass
class Made:
    base: Path
    run: Path


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS_BT).logits


def in_plain_peft(made: Made, folder: Path) -> torch.Tensor:
    """Scores of base and adapter as a user without lorakit computes them."""
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(made.base), folder).eval())


def peft_run(root: Path, model, **settings) -> Made:
    """An adapter made by PEFT alone, every pair moved."""
    base = save_checkpoint(root / "base", model)
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.add_(0.1 * torch.randn_like(weight))
    wrapped.save_pretrained(root / "run", save_embedding_layers=False)
    return Made(base, root / "run")


OURS = {
    "gpt2": (tiny_gpt2, LoraSettings(rank=4, alpha=8.0)),
    "rslora": (tiny_gpt2, LoraSettings(rank=4, alpha=8.0, rslora=True)),
    "dora": (tiny_llama, LoraSettings(rank=4, alpha=8.0, dora=True)),
    "last block": (tiny_gpt2, LoraSettings(rank=4, alpha=8.0, last_blocks=1)),
}
PEFTS = {
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["c_attn", "mlp.c_fc"],
        "rank_pattern": {"h.0.attn.c_attn": 2},
        "alpha_pattern": {"c_fc": 3},
        "fan_in_fan_out": True,
    },
    "output layer beside tied embeddings": {"r": 4, "target_modules": ["lm_head"]},
    "named by a pattern": {"r": 4, "target_modules": r".*\.h\.1\..*c_fc", "fan_in_fan_out": True},
}


@pytest.fixture(scope="module", params=[*OURS, *PEFTS])
def made(request, tmp_path_factory) -> Made:
    root = tmp_path_factory.mktemp("adapters")
    if request.param in PEFTS:
        return peft_run(root, tiny_gpt2(), **PEFTS[request.param])
    model, settings = OURS[request.param]
    base = save_checkpoint(root / "base", model())
    trained_run(root / "run", find(str(base)), settings, "lora")
    return Made(base, root / "run")


def test_all_of_the_energy_leaves_plain_peft_with_the_same_scores(made, tmp_path):
    resize(str(made.run), tmp_path / "same", energy=1, base=str(made.base))
    found, untouched = in_plain_peft(made, tmp_path / "same"), logits(AutoModelForCausalLM.from_pretrained(made.base))
    torch.testing.assert_close(found, in_plain_peft(made, made.run), rtol=0, atol=1e-4)
    assert (found - untouched).abs().max() > 0.1


def test_a_resized_adapter_gives_one_result_here_in_plain_peft_and_merged(made, tmp_path):
    resize(str(made.run), tmp_path / "small", rank=1, base=str(made.base))
    expected = in_plain_peft(made, tmp_path / "small")
    torch.testing.assert_close(logits(open_target(str(tmp_path / "small")).load()), expected, rtol=0, atol=1e-5)
    assert (expected - in_plain_peft(made, made.run)).abs().max() > 1e-2
    merge(str(tmp_path / "small"), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-4)
    assert len(generate(str(tmp_path / "small"), "The quick")) == 1


def test_ranks_of_single_layers_are_told_in_the_manifest_and_an_edit_of_them_is_caught(gpt2_folder, tmp_path):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(rank=8, targets="all-linear"), "lora")
    report = resize(str(tmp_path / "run"), tmp_path / "small", energy=0.6)
    ranks = {cut.layer: cut.rank for cut in report.cuts}
    assert len(set(ranks.values())) > 1
    method = read_manifest(tmp_path / "small").method
    assert {layer: method["rank_pattern"].get(layer, method["rank"]) for layer in ranks} == ranks
    file = tmp_path / "small" / "adapter_config.json"
    config = json.loads(file.read_text("utf-8"))
    config["alpha_pattern"] = dict.fromkeys(config["alpha_pattern"], 99.0)
    file.write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "small" / "hashes.json").unlink()
    with pytest.raises(LorakitError, match="alpha_pattern is"):
        open_target(str(tmp_path / "small"))


@pytest.mark.parametrize("case", ["labels-bert", "labels-t5"])
def test_a_head_beside_the_pairs_stays_bit_for_bit(case, tmp_path):
    shop = Workshop.filled(tmp_path)
    chosen = CASES[case]
    run = train(tmp_path / "run", shop.model(chosen), shop.data(chosen), method={"name": "lora", "rank": 4}).folder
    resize(str(run), tmp_path / "small", rank=1)
    before, after = weights(run), weights(tmp_path / "small")
    heads = [name for name in before if ".lora_" not in name]
    assert heads
    assert all(torch.equal(before[name], after[name]) for name in heads)
    assert before.keys() == after.keys()
    assert set(read_manifest(tmp_path / "small").trained) == set(read_manifest(run).trained)
    assert open_target(str(tmp_path / "small")).head == open_target(str(run)).head


def test_rows_of_new_tokens_stay_bit_for_bit(tmp_path):
    base = save_checkpoint(tmp_path / "base", tiny_llama())
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    run = train(tmp_path / "run", base, data, model__add_tokens=["Dahlia", "강남"]).folder
    resize(str(run), tmp_path / "small", rank=1)
    before, after = weights(run), weights(tmp_path / "small")
    rows = [name for name in before if "trainable_tokens" in name]
    assert len(rows) == 2
    assert all(torch.equal(before[name], after[name]) for name in rows)
    small = open_target(str(tmp_path / "small"))
    plain = AutoTokenizer.from_pretrained(str(tmp_path / "small"))
    assert plain("Dahlia").input_ids == open_target(str(run)).tokenizer("Dahlia").input_ids
    assert set(read_manifest(tmp_path / "small").trained) == set(read_manifest(run).trained)
    small.load()


def test_the_loss_is_measured_before_and_after_on_all_rows(gpt2_folder, pairs_file, tmp_path):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(rank=8), "lora")
    cost = resize(str(tmp_path / "run"), tmp_path / "small", rank=1, data=str(pairs_file)).cost
    assert cost.rows == len(PAIRS)
    for folder, told in ((tmp_path / "run", cost.before[str(tmp_path / "run")]), (tmp_path / "small", cost.after)):
        target = open_target(str(folder))
        model, total, count = target.load(), 0.0, 0
        for row in PAIRS:
            prompt = target.tokenizer(f"{row['prompt']} => ").input_ids
            answer = [*target.tokenizer(row["completion"]).input_ids, 0]
            scores = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            total -= sum(float(scores[place, token]) for place, token in zip(places, answer, strict=True))
            count += len(answer)
        assert told == pytest.approx(total / count, rel=1e-5)


def test_a_tensor_that_nothing_names_is_refused_in_words(tmp_path):
    made = peft_run(tmp_path, tiny_gpt2(), r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    odd = {"base_model.model.lm_head.base_layer.weight": torch.zeros(2, 2)}
    save_file(weights(made.run) | odd, made.run / "adapter_model.safetensors")
    with pytest.raises(LorakitError, match=r"lm_head\.base_layer\.weight.*save_embedding_layers"):
        resize(str(made.run), tmp_path / "small", rank=1, base=str(made.base))
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "one of the two"),
        ({"rank": 2, "energy": 0.5}, "one of the two"),
        ({"rank": 0}, "--rank is 0"),
        ({"energy": 1.5}, "--energy is 1.5"),
    ],
)
def test_a_choice_that_says_nothing_is_refused_before_anything_is_opened(asked, said, tmp_path):
    with pytest.raises(LorakitError, match=said):
        resize(str(tmp_path / "nothing"), tmp_path / "small", **asked)


def test_a_base_has_no_pairs_to_resize_and_the_message_says_what_to_do(gpt2_folder, tmp_path):
    with pytest.raises(LorakitError, match=r"no LoRA adapter.*adapter extract"):
        resize(str(gpt2_folder), tmp_path / "small", rank=2)
    assert not (tmp_path / "small").exists()
