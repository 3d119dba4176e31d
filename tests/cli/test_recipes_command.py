"""`lorakit recipes`: results on stdout, prose and faults on stderr, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lorakit.cli.main import app
from lorakit.errors import LorakitError
from lorakit.recipe import load, shipped_names, shipped_text


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `lorakit recipes ...` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["recipes", *arguments])


def test_list_names_every_recipe_and_its_purpose_a_line_each(run):
    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_names())
    starts = {line.index(line.split(maxsplit=1)[1]) for line in lines}
    assert len(starts) == 1


def test_list_shows_a_purpose_with_brackets_on_a_terminal_too():
    pty = pytest.importorskip("pty", reason="a terminal of POSIX systems")
    ours, theirs = pty.openpty()
    wide = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    wide.pop("NO_COLOR", None)
    with open(ours, "rb", buffering=0) as screen:
        subprocess.run([sys.executable, "-m", "lorakit", "recipes", "list"], stdout=theirs, env=wide, check=True)
        shown = screen.read(100_000).decode()
    os.close(theirs)
    assert "\x1b[" in shown
    assert "[{role: user, content: …}, …]" in shown


def test_show_prints_the_file_as_it_is(run):
    assert run("show", "quickstart").stdout == shipped_text("quickstart")


def test_copy_writes_the_same_text_and_says_what_comes_next(run):
    result = run("copy", "answers-lora")
    assert Path("answers-lora.yaml").read_text(encoding="utf-8") == shipped_text("answers-lora")
    assert result.stdout == "answers-lora.yaml\n"
    assert "lorakit train answers-lora.yaml" in result.stderr


def test_a_copy_loads_like_its_original(run):
    run("copy", "quickstart", "mine.yaml")
    assert load("mine.yaml").recipe == load("quickstart").recipe


def test_copy_goes_into_a_folder(run):
    Path("here").mkdir()
    assert run("copy", "quickstart", "here").stdout.strip() == str(Path("here/quickstart.yaml"))


def test_copy_does_not_overwrite_unless_told(run):
    Path("quickstart.yaml").write_text("mine")
    result = run("copy", "quickstart")
    assert isinstance(result.exception, LorakitError)
    assert "--force" in str(result.exception)
    assert Path("quickstart.yaml").read_text() == "mine"
    assert run("copy", "quickstart", "--force").exit_code == 0
    assert Path("quickstart.yaml").read_text(encoding="utf-8") == shipped_text("quickstart")


@pytest.mark.parametrize("command", ["show", "copy"])
def test_an_unknown_name_is_answered_with_the_nearest(command, run):
    assert "Did you mean 'quickstart'?" in str(run(command, "quikstart").exception)


def test_copy_says_where_it_cannot_write(run):
    result = run("copy", "quickstart", "missing/here.yaml")
    assert isinstance(result.exception, LorakitError)
    assert "missing/here.yaml" in str(result.exception)


def test_validate_says_that_a_recipe_has_no_faults(run):
    result = run("validate", "quickstart")
    assert (result.exit_code, result.stdout) == (0, "quickstart.yaml: no faults\n")


def test_validate_reports_every_file_and_leaves_with_1(run):
    Path("one.yaml").write_text("model: a\ndata: b\ntrain: {epochs: 0}\nzzz: 1\n")
    Path("two.yaml").write_text("model: [\n")
    result = run("validate", "one.yaml", "quickstart", "two.yaml")
    assert result.exit_code == 1
    assert result.stdout == "quickstart.yaml: no faults\n"
    for said in ("one.yaml has 2 faults", "train.epochs", "zzz", "two.yaml has 1 fault"):
        assert said in result.stderr


def test_faults_cannot_send_orders_to_the_terminal(run):
    Path("evil.yaml").write_text('model: a\ndata: b\n"\\e[31m": 1\ntrain: {epochs: "\\e[2J"}\n')
    assert "\x1b[" not in run("validate", "evil.yaml").stderr


def test_schema_is_json(run):
    assert json.loads(run("schema").stdout)["title"] == "Recipe"


def test_validate_leaves_with_1_and_no_traceback_as_a_program(tmp_path):
    command = [sys.executable, "-m", "lorakit", "recipes", "show", "nothing"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
