"""What is told of an adapter is read from its own files: no base, no weight, no torch."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from bundles import FORMS, trained_run
from lorakit.adapters.facts import licence
from lorakit.checkpoints.finding import find
from lorakit.methods.settings import LoraSettings
from lorakit.workflows.describing import info


@pytest.mark.parametrize("method", FORMS)
def test_the_numbers_told_are_those_the_safetensors_library_reads(tmp_path, gpt2_folder, method):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), *FORMS[method])
    found = info(str(tmp_path / "run"))
    file = next((tmp_path / "run").glob("*.safetensors"))
    assert found.parameters == sum(tensor.numel() for tensor in load_file(file).values())
    assert found.bytes == file.stat().st_size


def test_rank_and_scale_of_each_layer_are_those_of_plain_peft(tmp_path, llama_folder):
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM

    trained_run(tmp_path / "run", find(str(llama_folder)), LoraSettings(rank=4, alpha=6.0, rslora=True), "lora")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama_folder), tmp_path / "run")
    layers = {name: module for name, module in plain.base_model.model.named_modules() if isinstance(module, LoraLayer)}
    expected = {f"{name}.weight": (module.r["default"], module.scaling["default"]) for name, module in layers.items()}
    assert {layer.name: (layer.rank, layer.scale) for layer in info(str(tmp_path / "run")).layers} == expected


def test_a_base_that_is_gone_is_not_missed(tmp_path, gpt2_folder):
    base = shutil.copytree(gpt2_folder, tmp_path / "base")
    trained_run(tmp_path / "run", find(str(base)), LoraSettings(), "lora")
    shutil.rmtree(base)
    assert info(str(tmp_path / "run")).base["identity"] == "local:base"


def test_files_that_were_edited_are_told_and_no_weight_is_read_for_it(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    file = tmp_path / "run" / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 16.0', '"lora_alpha": 99.0'))
    hashed, contradicted = info(str(tmp_path / "run")).faults
    assert hashed.startswith("adapter_config.json is damaged or was edited: it differs from hashes.json")
    assert "(lora_alpha is 99.0 and 16.0)" in contradicted


def test_nothing_of_torch_is_loaded_to_tell_it(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    program = "import sys, lorakit; lorakit.info(sys.argv[1]).as_json(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# A\n", "apache-2.0"),
        ("---\ntags: [x]\n---\nlicense: mit\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n", None),
        ("license: mit\n", None),
    ],
)
def test_the_licence_is_read_from_the_front_matter_alone(tmp_path, text, expected):
    (tmp_path / "README.md").write_text(text)
    assert licence(tmp_path) == expected
