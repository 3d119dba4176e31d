"""What goes wrong with adapters on their way to others, done to sound ones: `lorakit.check` names each fault once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorakit
from bundles import FORMS, trained_run
from conftest import save_checkpoint, tiny_gpt2, tiny_tokenizer
from every_objective import CASES, Workshop
from lorakit.checkpoints.finding import find
from lorakit.checkpoints.hashes import write_hashes
from lorakit.methods.settings import LoraSettings
from runs import train

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with a base and a run of each method on it; copied before anything is done to them."""
    folder = tmp_path_factory.mktemp("sound")
    save_checkpoint(folder / "base", tiny_gpt2())
    for method, (settings, form) in FORMS.items():
        trained_run(folder / method, find(str(folder / "base")), settings, form)
    return folder


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory) -> Path:
    """A folder with a run of LoRA and one of all weights, of three labels."""
    shop = Workshop.filled(tmp_path_factory.mktemp("classifiers"))
    case = CASES["labels-bert"]
    for name, method in {"lora": {"name": "lora", "rank": 2}, "full": "full"}.items():
        train(
            shop.folder / name, shop.model(case), shop.data(case), data__eval=str(shop.evaluation(case)), method=method
        )
    return shop.folder


@pytest.fixture
def run(sound, tmp_path) -> Path:
    """A copy of the LoRA run."""
    return shutil.copytree(sound / "lora", tmp_path / "run")


def faults(target: Path, base: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Name of a check -> its faults, of those that found any."""
    looked = lorakit.check(str(target), base=None if base is None else str(base)).looked
    return {one.name: one.faults for one in looked if one.faults}


def edited(file: Path, change) -> None:
    """Change a JSON file and let the hashes say so: somebody who knows what hashes are for."""
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    write_hashes(file.parent)


def rewritten(folder: Path, change) -> None:
    """Change the tensors of an adapter, and its hashes."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_hashes(folder)


@pytest.mark.parametrize("method", FORMS)
def test_a_sound_run_of_each_method_has_no_fault(sound, method):
    assert faults(sound / method) == {}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_sound_classifier_has_no_fault(classifiers, method):
    assert faults(classifiers / method) == {}


def test_a_base_of_the_same_shape_and_other_weights_is_named_and_nothing_else(run, tmp_path):
    save_checkpoint(tmp_path / "other", tiny_gpt2(seed=9))
    found = faults(run, base=tmp_path / "other")
    assert found.keys() == {"base"}
    assert "trained on another base" in found["base"][0]


def test_a_base_that_is_gone_is_named_with_what_to_type(run):
    (run / "local.json").unlink()
    found = faults(run)
    assert found.keys() == {"base"}
    assert "--base FOLDER" in found["base"][0]


def test_an_edited_alpha_is_found_by_the_hashes_and_without_them_by_the_settings(run):
    file = run / CONFIG
    file.write_text(file.read_text().replace('"lora_alpha": 16.0', '"lora_alpha": 999.0'))
    assert faults(run).keys() == {"files", "settings"}
    write_hashes(run)
    found = faults(run)
    assert found.keys() == {"settings"}
    assert "lora_alpha is 999.0 and 16.0" in found["settings"][0]


def test_a_tensor_of_nothing_but_nan_is_named(run):
    name = "base_model.model.transformer.h.1.attn.c_attn.lora_B.weight"
    rewritten(run, lambda tensors: tensors[name].fill_(float("nan")))
    found = faults(run)
    assert found.keys() == {"tensors"}
    assert repr(name) in found["tensors"][0]


def test_a_number_of_a_whole_model_that_is_not_finite_is_named(sound, tmp_path):
    run = shutil.copytree(sound / "full", tmp_path / "run")
    tensors = load_file(run / "model.safetensors")
    tensors["transformer.ln_f.bias"][3] = float("inf")
    save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})
    write_hashes(run)
    assert "'transformer.ln_f.bias'" in faults(run)["tensors"][0]


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_file_that_was_cut_is_found_also_where_the_hashes_agree(run, kept):
    size = (run / WEIGHTS).stat().st_size
    os.truncate(run / WEIGHTS, kept % size)
    write_hashes(run)
    found = faults(run)
    assert found.keys() == {"tensors"}
    assert "is damaged" in found["tensors"][0]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_labels_in_another_order_are_found(classifiers, tmp_path, method):
    run = shutil.copytree(classifiers / method, tmp_path / "run")
    edited(run / "manifest.json", lambda manifest: manifest["head"]["labels"].reverse())
    found = faults(run)
    assert found.keys() == {"labels"}
    assert "c, b, a" in found["labels"][0]


@pytest.mark.parametrize("named", [{"0": "b", "1": "a", "2": "c"}, ["a", "b", "c"], "a, b, c", 3])
def test_other_labels_in_the_config_of_a_whole_model_are_found(classifiers, tmp_path, named):
    run = shutil.copytree(classifiers / "full", tmp_path / "run")
    edited(run / "config.json", lambda config: config.update(id2label=named))
    assert "labels" in faults(run)


CHANGES = {
    "missing": lambda tensors: tensors.pop(min(tensors)),
    "unexpected": lambda tensors: tensors.update({f"{min(tensors)}x": torch.zeros(2)}),
    "misshapen": lambda tensors: tensors.update({min(tensors): torch.zeros(3, 3)}),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_each_tensor_is_held_to_what_the_base_asks_for(run, kind):
    rewritten(run, CHANGES[kind])
    found = faults(run)
    assert found.keys() == {"tensors"}
    assert found["tensors"][0].startswith(kind)


def test_another_tokenizer_is_found(run, tmp_path):
    save_checkpoint(tmp_path / "other", tiny_gpt2(), tiny_tokenizer(vocab_size=300))
    assert "is not the one" in faults(run, base=tmp_path / "other")["tokenizer"][0]


@pytest.mark.parametrize(("ids", "words"), [([3], "'<|endoftext|>' (0)"), ([0, 4000], "4000")])
def test_stop_tokens_that_do_not_fit_the_tokenizer_are_found(run, ids, words):
    edited(run / "manifest.json", lambda manifest: manifest.update(eos_ids=ids))
    found = faults(run)
    assert found.keys() == {"stop tokens"}
    assert words in found["stop tokens"][0]


@pytest.mark.parametrize("template", ["{{ messages[", "{{ ''.__class__.__mro__ }}", "{{ raise_exception('no') }}"])
def test_a_chat_template_that_cannot_be_filled_in_is_found(run, template):
    style = {"format": "chat", "separator": "", "chat_template": template, "begins_document": False}
    edited(run / "manifest.json", lambda manifest: manifest.update(style=style))
    assert "template" in faults(run)


SECRETS = {
    "token": "hf_" + "a" * 34,
    "key": "-----BEGIN RSA PRIVATE KEY-----",
    "home": "/home/somebody/models/x",
    "drive": r"C:\\Users\\somebody\\x",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_or_a_path_in_a_file_is_found_and_not_repeated(run, kind):
    with (run / "README.md").open("a") as card:
        card.write(f"\n{SECRETS[kind]}\n")
    found = faults(run)
    assert found.keys() == {"privacy"}
    assert found["privacy"][0].startswith("README.md holds")
    assert SECRETS[kind] not in found["privacy"][0]


def test_the_path_of_its_own_base_and_the_value_of_a_secret_variable_are_found(run, sound, monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "correct horse battery")
    (run / "metrics.jsonl").write_text(json.dumps({"base": str(sound / "base"), "x": "correct horse battery"}))
    found = faults(run)
    assert [fault.split(":")[0] for fault in found["privacy"]] == [
        "metrics.jsonl holds the value of a secret environment variable",
        "metrics.jsonl holds a path of a computer",
    ]


def test_an_adapter_of_plain_peft_that_names_its_base_by_a_path_is_told(sound, tmp_path):
    run = shutil.copytree(sound / "lora", tmp_path / "run")
    for name in ("manifest.json", "hashes.json"):
        (run / name).unlink()
    file = run / CONFIG
    file.write_text(file.read_text().replace('"local:base"', '"/content/base"'))
    found = faults(run, base=sound / "base")
    assert found.keys() == {"privacy"}


def test_missing_hashes_are_a_fault_of_a_run(run):
    (run / "hashes.json").unlink()
    assert faults(run).keys() == {"files"}


def test_several_faults_are_all_told_at_once(run):
    rewritten(run, lambda tensors: tensors[min(tensors)].fill_(float("inf")))
    edited(run / "manifest.json", lambda manifest: manifest.update(eos_ids=[3]))
    (run / "README.md").write_text(SECRETS["token"])
    assert faults(run).keys() == {"tensors", "stop tokens", "privacy"}


def test_scores_that_plain_peft_does_not_give_are_found(run, monkeypatch):
    # lorakit itself made wrong, as a file cannot be that passes everything else.
    monkeypatch.setattr("peft.set_peft_model_state_dict", lambda *_, **__: None)
    found = faults(run)
    assert found.keys() == {"plain libraries"}
    assert "scores that differ" in found["plain libraries"][0]


def test_a_packed_run_is_checked_as_it_is_and_a_damaged_one_is_told(run, tmp_path, monkeypatch, sound):
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "cache"))
    lorakit.pack(str(run), tmp_path / "run.lora")
    assert faults(tmp_path / "run.lora", base=sound / "base") == {}
    raw = bytearray((tmp_path / "run.lora").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "run.lora").write_bytes(raw)
    assert faults(tmp_path / "run.lora", base=sound / "base").keys() == {"file"}


def test_a_run_with_a_rank_stabilised_scale_has_no_fault(sound, tmp_path):
    trained_run(tmp_path / "run", find(str(sound / "base")), LoraSettings(rank=3, rslora=True), "lora")
    assert faults(tmp_path / "run") == {}


def test_a_run_with_ranks_and_alphas_of_single_layers_has_no_fault(sound, tmp_path):
    settings = LoraSettings(rank=3, rank_pattern={"c_fc": 2}, alpha_pattern={"h.0.attn.c_attn": 5.0})
    trained_run(tmp_path / "run", find(str(sound / "base")), settings, "lora")
    assert faults(tmp_path / "run") == {}


def test_settings_that_are_not_of_the_training_are_told_as_what_they_come_from(sound, tmp_path):
    trained_run(tmp_path / "run", find(str(sound / "base")), LoraSettings(rank=3), "lora")
    lorakit.resize(str(tmp_path / "run"), tmp_path / "cut", rank=2)
    told = {one.name: one.told for one in lorakit.check(str(tmp_path / "cut")).looked}
    assert told["settings"] == "LoRA of rank 2, alpha 2, as left by resize to rank 2"
