"""`lorakit push`: what would go on stdout, prose on stderr, 1 for a fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import trained_run
from conftest import save_checkpoint, tiny_gpt2
from lorakit.checkpoints.finding import find
from lorakit.methods.settings import LoraSettings


def lorakit(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lorakit", "push", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "0", **environment}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    base = save_checkpoint(folder / "base", tiny_gpt2())
    trained_run(folder / "run", find(str(base)), LoraSettings(rank=4), "lora")
    return folder / "run"


def test_a_dry_run_lists_files_with_bytes_and_the_head_of_the_card(run):
    nowhere = "http://127.0.0.1:9"
    done = lorakit(str(run), "me/answers", "--dry-run", "--card", "license=mit", HF_ENDPOINT=nowhere)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    size = (run / "adapter_model.safetensors").stat().st_size
    assert ["adapter_model.safetensors", f"{size:,}", "bytes"] in lines
    assert ["license:", "mit"] in lines
    assert ["tags:", "[lorakit,", "lora]"] in lines
    assert "stays here: local.json" in done.stderr
    assert "no base_model, as local:base is not on the Hub" in done.stderr


def test_a_refusal_is_one_line_and_leaves_with_1(run, tmp_path):
    done = lorakit(str(run), "me/answers", HF_TOKEN="", HF_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: not logged in to the Hub")
    assert len(done.stderr.splitlines()) == 1


def test_a_card_without_an_equals_sign_is_told(run):
    done = lorakit(str(run), "me/answers", "--card", "license")
    assert (done.returncode, done.stdout) == (1, "")
    assert "KEY=VALUE is meant" in done.stderr
