"""Surgery on the command line: the folder on stdout, what it is and what it costs on stderr, 1 for a fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bundles import trained_run
from conftest import save_checkpoint, tiny_gpt2
from lorakit.checkpoints.finding import find
from lorakit.cli.adapter_combining import weighted
from lorakit.cli.main import app
from lorakit.errors import LorakitError
from lorakit.methods.settings import DeltaSettings, LoraSettings


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


@pytest.fixture(scope="module")
def other(run) -> Path:
    settings = LoraSettings(rank=6, alpha=8.0, targets=["c_attn"])
    trained_run(run.parent / "other", find(str(run.parent / "base")), settings, "lora", 2)
    return run.parent / "other"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("runs/a:0.7", ("runs/a", 0.7)),
        ("runs/a:-1e-1", ("runs/a", -0.1)),
        ("runs/a", ("runs/a", 1.0)),
        ("C:\\runs\\a:0.5", ("C:\\runs\\a", 0.5)),
        ("C:\\runs\\a", ("C:\\runs\\a", 1.0)),
        ("builtin:tiny:2", ("builtin:tiny", 2.0)),
        ("org/name", ("org/name", 1.0)),
    ],
)
def test_a_weight_is_the_number_behind_the_last_colon(typed, meant):
    assert weighted(typed) == meant


def test_a_folder_of_the_whole_name_has_no_weight(tmp_path):
    folder = tmp_path / "at:0.5"
    folder.mkdir()
    assert weighted(str(folder)) == (str(folder), 1.0)
    assert weighted(f"{folder}:2") == (str(folder), 2.0)


def test_combine_tells_what_each_brings_and_what_it_costs(run, other, tmp_path, pairs_file):
    done = lorakit("combine", f"{run}:0.7", f"{other}:0.3", "-o", tmp_path / "both", "--data", pairs_file)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'both'}\n")
    assert f"0.7 of {run}" in done.stderr
    assert "2 layers of rank 6" in done.stderr
    assert "8 layers of rank 4 to 10" in done.stderr
    assert done.stderr.count("nats on 24 rows") == 2
    assert "loss of the result" in done.stderr


def test_subtract_and_scale_make_adapters_too(run, other, tmp_path):
    less = lorakit("subtract", run, other, "-o", tmp_path / "less", "-q")
    less_still = lorakit("scale", tmp_path / "less", "-0.5", "-o", tmp_path / "back")
    assert (less.exit_code, less.stderr, less_still.exit_code) == (0, "", 0)
    assert "-0.5 of" in less_still.stderr
    assert (tmp_path / "back" / "adapter_model.safetensors").is_file()


def test_diff_tells_layers_prompts_and_rows_on_stdout(run, other, pairs_file):
    done = lorakit("diff", run, other, "--prompt", "Once", "--prompt", "name:", "--data", pairs_file)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"A  {run}", f"B  {other}"]
    (attention,) = [line for line in lines if line.startswith("transformer.h.0.attn.c_attn")]
    (feed,) = [line for line in lines if line.startswith("transformer.h.0.mlp.c_fc")]
    assert len(attention.split()) == 4
    assert feed.split()[2:] == ["–", "–"]
    assert sum(" nats " in line for line in lines if line.startswith(("Once", "name:"))) == 2
    assert any(line.startswith("24 rows: loss of A") for line in lines)
    assert any("predictions: divergence" in line for line in lines)


def test_diff_in_json_is_one_object(run, other):
    done = lorakit("diff", run, other, "--json")
    assert json.loads(done.stdout)["names"] == [str(run), str(other)]


def test_quantize_shows_sizes_and_losses(run, tmp_path, pairs_file):
    done = lorakit("quantize", run, "--to", "int8", "-o", tmp_path / "small", "--data", pairs_file)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'small'}\n")
    assert "loss of the result" in done.stderr


def test_a_width_that_is_none_is_refused_with_those_that_are(run, tmp_path):
    done = lorakit("quantize", run, "--to", "int3", "-o", tmp_path / "small")
    assert done.exit_code == 2
    assert "int4" in done.output


@pytest.fixture(scope="module")
def delta_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("delta")
    base = save_checkpoint(folder / "base", tiny_gpt2())
    trained_run(folder / "run", find(str(base)), DeltaSettings(), "changed")
    return folder / "run"


def test_ranks_print_a_table_and_write_nothing(delta_run, pairs_file):
    before = sorted(delta_run.parent.rglob("*"))
    done = lorakit("extract", "--tuned", delta_run, "--base", delta_run.parent / "base", "--ranks", "1,4")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    # Of two blocks: c_attn 32 x 96, c_proj 32 x 32, c_fc 32 x 128 and c_proj 128 x 32; a pair has r (rows + columns).
    assert [line[:1] + line[-4:-3] for line in lines[2:]] == [["1", "1,024"], ["4", "4,096"]]
    assert lines[1][:3] == ["as", "trained", "24,576"]
    assert sorted(delta_run.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--ranks", "1,x"], "--ranks is '1,x'; give whole numbers"),
        (["--ranks", "0,2"], "--ranks holds 0; each must be 1 or more"),
        (["--ranks", "2", "--rank", "2"], "--ranks writes no folder"),
        (["--rank", "2"], "give -o FOLDER for the adapter, or --ranks"),
    ],
)
def test_what_cannot_be_asked_of_extract_says_what_can(delta_run, given, said):
    done = lorakit("extract", "--tuned", delta_run, *given)
    assert isinstance(done.exception, LorakitError)
    assert said in str(done.exception)
