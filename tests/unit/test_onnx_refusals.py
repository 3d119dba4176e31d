"""What an ONNX folder cannot hold is refused before any work, saying what to do; onnxruntime need not be installed."""

from __future__ import annotations

import pytest
from transformers import AutoModelForSequenceClassification

from conftest import save_checkpoint
from lorakit.errors import LorakitError
from lorakit.workflows import export_onnx
from lorakit.workflows.exporting import export
from model_types import tiny_model

IDS = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def refused(base, output, match, **options):
    with pytest.raises(LorakitError, match=match):
        export(str(base), "onnx", output, **options)
    assert not output.exists()


def test_a_classifier_that_looks_for_the_end_of_its_text_is_refused(tmp_path):
    model = tiny_model("t5", AutoModelForSequenceClassification, **IDS)
    base = save_checkpoint(tmp_path / "base", model)
    refused(base, tmp_path / "onnx", "last end-of-sequence token.* Use --to safetensors")


def test_parts_and_fewer_bits_are_refused(tmp_path, gpt2_folder):
    refused(gpt2_folder, tmp_path / "onnx", "--shard-size is for --to safetensors", shard_size=1000)
    refused(gpt2_folder, tmp_path / "onnx", "does not store bfloat16; give --dtype f32", dtype="bf16")


def test_what_is_not_installed_is_named_with_how_to_get_it(tmp_path, gpt2_folder, monkeypatch):
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None if name == "onnxscript" else object())
    refused(gpt2_folder, tmp_path / "onnx", r"needs onnxscript, .*pip install 'lorakit\[onnx\]'")
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None if name.startswith("transformers") else object())
    refused(gpt2_folder, tmp_path / "onnx", "pip install 'transformers>=5.17'")
