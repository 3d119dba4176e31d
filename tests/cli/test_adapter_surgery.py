"""Surgery on the command line: the folder on stdout, what it is and what it costs on stderr, 1 for a fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bundles import trained_run
from conftest import save_checkpoint, tiny_gpt2
from lorakit.checkpoints.finding import find
from lorakit.cli.main import app
from lorakit.errors import LorakitError
from lorakit.methods.settings import LoraSettings


def lorakit(*arguments: str | Path):
    return CliRunner().invoke(app, ["adapter", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    base = save_checkpoint(folder / "base", tiny_gpt2())
    trained_run(folder / "run", find(str(base)), LoraSettings(rank=4, alpha=8.0), "lora")
    return folder / "run"


def test_resize_shows_the_spectrum_of_each_layer_and_what_it_costs(run, tmp_path, pairs_file):
    done = lorakit("resize", run, "--rank", "2", "-o", tmp_path / "small", "--data", pairs_file)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'small'}\n")
    (line,) = [line for line in done.stderr.splitlines() if "h.0.attn.c_attn" in line]
    assert line.split()[1:3] == ["2", "4"]
    assert "nats on 24 rows" in done.stderr
    assert "loss of the result" in done.stderr


def test_a_quiet_resize_prints_the_folder_alone(run, tmp_path):
    done = lorakit("resize", run, "--energy", "0.9", "-o", tmp_path / "small", "-q")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{tmp_path / 'small'}\n", "")


def test_an_adapter_never_replaces_what_it_was_made_from(run):
    done = lorakit("resize", run, "--rank", "2", "-o", run, "--force")
    assert isinstance(done.exception, LorakitError)
    assert "is not replaced" in str(done.exception)
    assert (run / "adapter_model.safetensors").is_file()
