"""A packed run is a target like its folder, and holds nothing that is for its author alone."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

import lorakit
from bundles import FORMS, trained_run
from conftest import PAIRS
from lorakit.adapters.bundle import open_target
from lorakit.checkpoints.finding import find
from lorakit.errors import CheckpointError, LorakitError
from lorakit.generation.settings import DecodingSettings
from runs import train

IDS_BT = torch.arange(40).reshape(2, 20) * 7 % 400
SHORT = DecodingSettings(max_new_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run of each method on tiny-gpt, and each as a file."""
    folder = tmp_path_factory.mktemp("runs")
    for method, (settings, form) in FORMS.items():
        trained_run(folder / method, find("tiny-gpt"), settings, form)
        lorakit.pack(str(folder / method), folder / f"{method}.lora")
    return folder


def scores(name: Path) -> torch.Tensor:
    return open_target(str(name)).load()(IDS_BT).logits


@pytest.mark.parametrize("method", FORMS)
def test_a_file_gives_the_scores_of_its_folder_bit_for_bit(folder, method):
    assert torch.equal(scores(folder / f"{method}.lora"), scores(folder / method))


@pytest.mark.parametrize("method", FORMS)
def test_what_was_unpacked_packs_into_the_same_bytes(folder, tmp_path, method):
    lorakit.unpack(folder / f"{method}.lora", tmp_path / "run")
    lorakit.pack(str(tmp_path / "run"), tmp_path / "again.lora")
    assert (tmp_path / "again.lora").read_bytes() == (folder / f"{method}.lora").read_bytes()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_text_is_written_from_a_file_and_from_a_file_of_a_file(folder, tmp_path, method):
    [expected] = lorakit.generate(str(folder / method), "Once", SHORT)
    lorakit.pack(str(folder / f"{method}.lora"), tmp_path / "copy.lora")
    for file in (folder / f"{method}.lora", tmp_path / "copy.lora"):
        [found] = lorakit.generate(str(file), "Once", SHORT)
        assert found.text == expected.text


def test_predict_evaluate_and_merge_take_a_file(folder, tmp_path):
    file, run = str(folder / "lora.lora"), str(folder / "lora")
    assert lorakit.predict(file, "Once", max_new_tokens=6) == lorakit.predict(run, "Once", max_new_tokens=6)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS[:4]))
    both = lorakit.evaluate(file, rows, against=run).as_json()
    assert both["target"]["scores"] == both["against"]["scores"]
    assert lorakit.merge(file, tmp_path / "merged").same_text == 1


@pytest.fixture
def elsewhere(tmp_path, gpt2_folder) -> tuple[Path, str]:
    """The difference to a base that lies in another folder than where it was packed, and that folder."""
    shutil.copytree(gpt2_folder, tmp_path / "base")
    trained_run(tmp_path / "run", find(str(tmp_path / "base")), *FORMS["full"])
    lorakit.pack(str(tmp_path / "run"), tmp_path / "run.lora", difference=True, base=str(tmp_path / "base"))
    (tmp_path / "base").rename(tmp_path / "base here")
    return tmp_path / "run.lora", str(tmp_path / "base here")


def test_a_difference_is_described_and_packed_again_with_its_base_given(elsewhere, tmp_path):
    file, base = elsewhere
    assert lorakit.info(str(file), base=base).layers == lorakit.info(str(tmp_path / "run")).layers
    lorakit.pack(str(file), tmp_path / "again.lora", difference=True, base=base)
    assert (tmp_path / "again.lora").read_bytes() == file.read_bytes()


def test_a_difference_is_extracted_with_its_base_given(elsewhere, tmp_path):
    file, base = elsewhere
    done = lorakit.extract(str(file), tmp_path / "pairs", base=base, rank=2)
    assert done.cuts == lorakit.extract(str(tmp_path / "run"), tmp_path / "others", base=base, rank=2).cuts


def test_training_goes_on_from_a_file_and_what_it_writes_is_found_again(folder, tmp_path, pairs_file):
    train(tmp_path / "run", folder / "full.lora", pairs_file, train__max_steps=1)
    assert open_target(str(tmp_path / "run")).base.identity == "local:full"


def test_nothing_goes_out_that_is_for_the_author_alone(tmp_path, pairs_file):
    train(tmp_path / "run", "tiny-gpt", pairs_file, train__max_steps=2)
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "run" / "my rows.jsonl").write_text(json.dumps(PAIRS[0]))
    packed = lorakit.pack(str(tmp_path / "run"), tmp_path / "run.lora")
    assert {"checkpoints", "local.json", "metrics.jsonl", "my rows.jsonl"} <= set(packed.left)
    with zipfile.ZipFile(tmp_path / "run.lora") as archive:
        weights = {"adapter_config.json", "adapter_model.safetensors"}
        assert {*archive.namelist()} == weights | {"README.md", "hashes.json", "manifest.json", "recipe.yaml"}
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert str(tmp_path).encode() not in everything
    assert PAIRS[0]["completion"].encode() not in everything


def test_a_secret_in_a_file_is_not_packed(folder, tmp_path):
    trained_run(tmp_path / "run", find("tiny-gpt"), *FORMS["lora"])
    with (tmp_path / "run" / "README.md").open("a") as card:
        card.write("hf_" + "x" * 34)
    with pytest.raises(LorakitError, match=r"README\.md holds a token"):
        lorakit.pack(str(tmp_path / "run"), tmp_path / "run.lora")
    assert not (tmp_path / "run.lora").exists()


def test_a_damaged_run_is_not_packed(tmp_path):
    trained_run(tmp_path / "run", find("tiny-gpt"), *FORMS["lora"])
    (tmp_path / "run" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged or was edited"):
        lorakit.pack(str(tmp_path / "run"), tmp_path / "run.lora")


def test_a_name_with_another_end_is_refused_saying_which(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"-o run\.zip\.lora"):
        lorakit.pack(str(folder / "lora"), tmp_path / "run.zip")
