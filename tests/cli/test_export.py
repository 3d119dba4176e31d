"""`lorakit export`: the path on stdout, whole or absent, nothing overwritten unasked; merged folders in parts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from bundles import plain_adapter
from conftest import tiny_llama
from lorakit.adapters.export import shards
from lorakit.cli.main import app
from lorakit.errors import CheckpointError, Interrupted, LorakitError
from lorakit.workflows.exporting import export
from lorakit.workflows.merging import merge

IDS_BT = torch.arange(40).reshape(2, 20) * 7 % 400


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return plain_adapter(tmp_path_factory.mktemp("adapters") / "adapter", tiny_llama())


def test_a_folder_in_parts_is_what_merge_writes_in_one(adapter, llama_folder, tmp_path):
    export(str(adapter), "safetensors", tmp_path / "parts", base=str(llama_folder), shard_size=20_000)
    merge(str(adapter), tmp_path / "whole", base=str(llama_folder))
    parts = sorted((tmp_path / "parts").glob("model-*.safetensors"))
    found = {name: tensor for part in parts for name, tensor in load_file(part).items()}
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    assert len(parts) > 2
    assert found.keys() == expected.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


def test_a_part_is_too_large_only_where_one_tensor_is(adapter, llama_folder, tmp_path):
    export(str(adapter), "safetensors", tmp_path / "parts", base=str(llama_folder), shard_size=20_000)
    for part in (tmp_path / "parts").glob("model-*.safetensors"):
        tensors = load_file(part)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 20_000


def test_plain_transformers_loads_the_parts_in_the_dtype_asked_for(adapter, llama_folder, tmp_path):
    settings = {"base": str(llama_folder), "shard_size": 20_000, "dtype": "bf16"}
    export(str(adapter), "safetensors", tmp_path / "parts", **settings)
    merge(str(adapter), tmp_path / "whole", "bfloat16", base=str(llama_folder))
    found, expected = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("parts", "whole"))
    assert found.dtype == torch.bfloat16
    assert found(IDS_BT).logits.equal(expected(IDS_BT).logits)


def test_the_index_names_the_size_of_all_tensors(adapter, llama_folder, tmp_path):
    export(str(adapter), "safetensors", tmp_path / "parts", base=str(llama_folder), shard_size=20_000)
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    held = [load_file(part) for part in (tmp_path / "parts").glob("model-*.safetensors")]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for part in held for tensor in part.values())


def test_export_prints_the_folder_on_stdout_and_the_proof_on_stderr(adapter, llama_folder, tmp_path):
    arguments = [str(adapter), "--to", "safetensors", "-o", str(tmp_path / "out"), "--base", str(llama_folder)]
    done = CliRunner().invoke(app, ["export", *arguments, "--shard-size", "20KB"], catch_exceptions=False)
    assert done.stdout == f"{tmp_path / 'out'}\n"
    assert "read by" in done.stderr
    assert "largest difference" in done.stderr


def test_an_output_that_exists_is_kept(adapter, llama_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="--force"):
        export(str(adapter), "safetensors", tmp_path / "out", base=str(llama_folder))
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_force_replaces_what_an_export_wrote(adapter, llama_folder, tmp_path):
    for dtype in ("f32", "bf16"):
        export(str(adapter), "safetensors", tmp_path / "out", dtype, base=str(llama_folder), force=True)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_interrupted_export_leaves_nothing(adapter, llama_folder, tmp_path, monkeypatch):
    def stopped(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(shards, "split", stopped)
    with pytest.raises(Interrupted):
        export(str(adapter), "safetensors", tmp_path / "out", base=str(llama_folder))
    assert list(tmp_path.iterdir()) == []


def test_a_changed_part_is_found_before_the_folder_gets_its_name(adapter, llama_folder, tmp_path, monkeypatch):
    split = shards.split

    def damaging(source, folder, most):
        split(source, folder, most)
        file = sorted(folder.glob("*.safetensors"))[0]
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")

    monkeypatch.setattr(shards, "split", damaging)
    with pytest.raises(LorakitError, match="nothing was written"):
        export(str(adapter), "safetensors", tmp_path / "out", base=str(llama_folder))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "safetensor"], "Did you mean 'safetensors'?"),
        (["--to", "safetensors", "--dtype", "q8_0"], "give --dtype f32, bf16 or f16"),
        (["--to", "safetensors", "--dtype", "int3"], "must be one of f32, bf16, f16, q8_0"),
        (["--to", "safetensors", "--shard-size", "big"], "must be a size such as 500MB or 5GB"),
    ],
)
def test_what_is_not_known_is_answered_with_what_is(arguments, said, adapter, llama_folder, tmp_path):
    base = ["--base", str(llama_folder), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["export", str(adapter), *arguments, *base])
    assert isinstance(done.exception, LorakitError)
    assert said in str(done.exception)


def test_a_base_has_nothing_to_fold(tmp_path):
    with pytest.raises(CheckpointError, match="nothing to merge"):
        export("tiny-gpt", "safetensors", tmp_path / "out")
