"""`lorakit merge` and `lorakit base`: prose on stderr, the folder on stdout, and 1 for a user's mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bundles import plain_adapter
from conftest import tiny_llama
from lorakit import __main__ as program
from lorakit.errors import CheckpointError
from lorakit.workflows.merging import merge


def lorakit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lorakit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=None)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return plain_adapter(tmp_path_factory.mktemp("adapters") / "adapter", tiny_llama())


def test_merge_prints_the_folder_on_stdout_and_the_proof_on_stderr(adapter, llama_folder, tmp_path):
    done = lorakit("merge", str(adapter), "-o", str(tmp_path / "merged"), "--base", str(llama_folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'merged'}\n"
    assert "largest difference" in done.stderr
    assert "100%" in done.stderr


def test_a_merge_without_its_base_says_what_to_type_and_leaves_nothing(adapter, tmp_path):
    done = lorakit("merge", str(adapter), "-o", str(tmp_path / "merged"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "--base FOLDER" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_quiet_merge_prints_the_folder_alone(adapter, llama_folder, tmp_path):
    done = lorakit("merge", str(adapter), "-o", str(tmp_path / "merged"), "--base", str(llama_folder), "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'merged'}\n", "")


def test_a_built_in_has_nothing_to_merge(tmp_path):
    with pytest.raises(CheckpointError, match="builtin:tiny-gpt is a base model: there is nothing to merge"):
        merge("tiny-gpt", tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("point", ["fold", "observe", "_compare", "_describe"])
def test_ctrl_c_at_any_point_of_a_merge_leaves_nothing(adapter, llama_folder, tmp_path, monkeypatch, capsys, point):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"lorakit.workflows.merging.{point}", stop)
    words = ["lorakit", "merge", str(adapter), "-o", str(tmp_path / "merged"), "--base", str(llama_folder)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as leaving:
        program.run()
    assert leaving.value.code == 130
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_base_path_prints_the_folder(llama_folder):
    done = lorakit("base", "path", str(llama_folder))
    assert done.stdout == f"{llama_folder}\n"


def test_base_list_prints_names_alone_on_stdout():
    done = lorakit("base", "list")
    assert done.returncode == 0
    assert all(line.endswith(("built in", "cached")) for line in done.stdout.splitlines())
