"""Files of one folder that contradict each other, their hashes written anew: every verb that opens it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import lorakit
from bundles import trained_run
from conftest import save_checkpoint, tiny_gpt2
from every_objective import CASES, Workshop
from lorakit.checkpoints.finding import find
from lorakit.checkpoints.hashes import write_hashes
from lorakit.errors import CheckpointError, LorakitError
from lorakit.methods.settings import LoraSettings
from runs import train

VERBS = {
    "merge": lambda run, out: lorakit.merge(str(run), out),
    "pack": lambda run, out: lorakit.pack(str(run), out.with_suffix(".lora")),
    "resize": lambda run, out: lorakit.resize(str(run), out, rank=1),
    "scale": lambda run, out: lorakit.scale(str(run), 0.5, out),
    "combine": lambda run, out: lorakit.combine([(str(run), 0.5), (str(run.parent / "sound"), 0.5)], out),
    "quantize": lambda run, out: lorakit.quantize(str(run), out, "int8"),
}
READERS = {
    "predict": lambda run, out: lorakit.predict(str(run), "one"),
    "evaluate": lambda run, out: lorakit.evaluate(str(run), run.parent / "seen.jsonl"),
}


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory) -> Path:
    """A folder with a LoRA of three labels, and with a copy whose labels are in another order."""
    shop = Workshop.filled(tmp_path_factory.mktemp("classifiers"))
    case = CASES["labels-bert"]
    method = {"name": "lora", "rank": 2}
    train(
        shop.folder / "sound", shop.model(case), shop.data(case), data__eval=str(shop.evaluation(case)), method=method
    )
    edited(shop.folder / "sound", "manifest.json", lambda manifest: manifest["task"]["labels"].reverse())
    return shop.folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> Path:
    """A folder with a LoRA of rank 2, and with a copy whose config and manifest say 4, alpha in proportion."""
    folder = tmp_path_factory.mktemp("adapters")
    base = find(str(save_checkpoint(folder / "base", tiny_gpt2())))
    trained_run(folder / "sound", base, LoraSettings(rank=2, alpha=4.0), "lora")
    edited(folder / "sound", "manifest.json", lambda manifest: manifest["method"].update(rank=4, alpha=8.0))
    edited(folder / "edited", "adapter_config.json", lambda config: config.update(r=4, lora_alpha=8.0))
    return folder


def edited(run: Path, name: str, change) -> None:
    """Change a JSON file of a copy, and let its hashes say so."""
    copy = run.parent / "edited"
    if not copy.exists():
        shutil.copytree(run, copy)
    values = json.loads((copy / name).read_text())
    change(values)
    (copy / name).write_text(json.dumps(values))
    write_hashes(copy)


@pytest.mark.parametrize("verb", [*READERS, *VERBS])
def test_labels_in_another_order_are_never_used_for_answers(classifiers, tmp_path, verb):
    with pytest.raises(CheckpointError, match=r"the labels in manifest\.json"):
        {**READERS, **VERBS}[verb](classifiers / "edited", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_a_rank_that_is_not_that_of_the_numbers_is_refused(adapters, tmp_path, verb):
    with pytest.raises(CheckpointError, match=r"has rank 4 in adapter_config\.json, and \(2, 32\) are its numbers"):
        VERBS[verb](adapters / "edited", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_not_finite_are_not_packed(adapters, tmp_path):
    run = shutil.copytree(adapters / "sound", tmp_path / "run")
    file = run / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[min(tensors)][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    write_hashes(run)
    with pytest.raises(LorakitError, match="not finite"):
        lorakit.pack(str(run), tmp_path / "run.lora")
    assert not (tmp_path / "run.lora").exists()


def test_an_edited_alpha_is_not_packed(adapters, tmp_path):
    run = shutil.copytree(adapters / "sound", tmp_path / "run")
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 999.0}))
    write_hashes(run)
    with pytest.raises(CheckpointError, match="lora_alpha is 999"):
        lorakit.pack(str(run), tmp_path / "run.lora")
