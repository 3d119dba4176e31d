"""`lorakit adapter`: results on stdout, prose on stderr, 1 for a fault."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from bundles import trained_run
from conftest import save_checkpoint, tiny_gpt2
from lorakit.checkpoints.finding import find
from lorakit.checkpoints.hashes import write_hashes
from lorakit.methods.settings import LoraSettings


def lorakit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lorakit", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    base = save_checkpoint(folder / "base", tiny_gpt2())
    trained_run(folder / "run", find(str(base)), LoraSettings(rank=4, alpha=8.0), "lora")
    return folder / "run"


def test_info_shows_what_it_is_and_gathers_layers_that_differ_in_their_number_alone(run):
    done = lorakit("adapter", "info", str(run))
    assert (done.returncode, done.stderr) == (0, "")
    assert "local:base" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if ".attn.c_attn" in line]
    # Two blocks of A (4, 32) and B (96, 4).
    assert line.split() == ["transformer.h.*.attn.c_attn.weight", "2", "4", "2", "1,024"]


def test_info_says_which_layers_have_which_of_several_ranks(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config, file = json.loads((run / "adapter_config.json").read_text()), tmp_path / "run" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "transformer.h.1.attn.c_attn"
    for key in [key for key in tensors if name in key]:
        tensors[key] = tensors[key][:2].contiguous() if "lora_A" in key else tensors[key][:, :2].contiguous()
    save_file(tensors, file)
    config["rank_pattern"] = {name: 2}
    (tmp_path / "run" / "adapter_config.json").write_text(json.dumps(config))
    shown = lorakit("adapter", "info", str(tmp_path / "run")).stdout
    told = [line.split()[:3] for line in shown.splitlines() if line.startswith("transformer") and "c_attn" in line]
    assert told == [["transformer.h.0.attn.c_attn.weight", "1", "4"], [f"{name}.weight", "1", "2"]]
    assert "adapter_config.json is damaged or was edited" in shown


def test_info_as_json_is_one_object_free_of_paths(run):
    done = lorakit("adapter", "info", str(run), "--json")
    told = json.loads(done.stdout)
    assert (told["method"]["rank"], told["layers"][0]["scale"], told["head"]["task"]) == (4, 2.0, "causal_lm")
    assert str(run.parent) not in done.stdout


def test_a_name_that_nothing_has_is_told_in_words(tmp_path):
    done = lorakit("adapter", "info", str(tmp_path / "nothing"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no model")


def test_check_of_a_sound_run_leaves_with_0(run):
    done = lorakit("adapter", "check", str(run))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "no faults"


def test_what_there_is_nothing_to_hold_to_has_no_tick(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for name in ("manifest.json", "hashes.json"):
        (tmp_path / "run" / name).unlink()
    done = lorakit("adapter", "check", str(tmp_path / "run"), "--base", str(run.parent / "base"))
    marks = {
        line.split("  ")[0]: line.split()[1] for line in done.stdout.splitlines() if line.startswith(("files", "base"))
    }
    assert marks == {"files": "–", "base": "–"}


def test_check_tells_each_fault_in_one_line_and_leaves_with_1(run, tmp_path):
    damaged = shutil.copytree(run, tmp_path / "damaged")
    file = damaged / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 8.0', '"lora_alpha": 80.0'))
    write_hashes(damaged)
    (damaged / "README.md").write_text("/home/somebody/x/")
    done = lorakit("adapter", "check", str(damaged))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "2 faults"
    assert [line.split()[0] for line in done.stdout.splitlines() if "✗" in line] == ["settings", "privacy"]


def test_pack_and_unpack_print_the_name_on_stdout_and_what_was_done_on_stderr(run, tmp_path):
    file, folder = tmp_path / "x.lora", tmp_path / "x"
    for command in (["pack", str(run), "-o", str(file)], ["unpack", str(file), "-o", str(folder)]):
        done = lorakit("adapter", *command)
        assert (done.returncode, done.stdout) == (0, f"{command[-1]}\n"), done.stderr
        assert "adapter_model.safetensors" in done.stderr


def test_unpack_of_something_else_is_told_in_words(tmp_path):
    (tmp_path / "x.lora").write_text("letters")
    done = lorakit("adapter", "unpack", str(tmp_path / "x.lora"), "-o", str(tmp_path / "x"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "damaged or no .lora file" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.lora"]
