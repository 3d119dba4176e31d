"""What reaches a log and a terminal: a message a line in the one, and no escape where none is wanted on the other."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from lorakit.cli import progress, screen

LONG = "runs/" + "a-long-name-" * 12


def on_terminal(*words, **environment):
    """Run lorakit on a pseudo-terminal; return what it wrote there on both streams."""
    pty = pytest.importorskip("pty", reason="a terminal of POSIX systems")
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    command = [sys.executable, "-m", "lorakit", *words]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with open(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(command, **streams, env={**inherited, "TERM": "xterm", **environment})
        os.close(theirs)
        written = b"".join(iter(lambda: _read(terminal), b""))
        process.wait()
    return written.decode()


def _read(terminal):
    try:
        return terminal.read(100_000)
    except OSError:
        # Linux says so where the last writer has left.
        return b""


@pytest.mark.parametrize("columns", [None, "40"])
def test_a_table_in_a_log_keeps_each_of_its_lines_whole(capfd, monkeypatch, columns):
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    screen.tell(screen.facts([("saved", f"{LONG} · adapter 397 kB"), ("next", f"lorakit generate {LONG}")]))
    assert capfd.readouterr().err == f"saved  {LONG} · adapter 397 kB\nnext   lorakit generate {LONG}\n"


@pytest.mark.parametrize("columns", [None, "40"])
def test_a_result_in_a_pipe_keeps_each_of_its_lines_whole(capfd, monkeypatch, columns):
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    screen.show(screen.facts([("base", LONG), ("method", "lora")]))
    assert capfd.readouterr().out == f"base    {LONG}\nmethod  lora\n"


@pytest.mark.parametrize(
    ("words", "begins", "ends"),
    [
        (["train", "--foo", "bar"], "error: No such option: --foo", " lorakit train --help says what can be given."),
        (
            ["trian"],
            "error: No such command 'trian'. Did you mean 'train'? ",
            " lorakit --help says what can be given.",
        ),
    ],
    ids=["option", "command"],
)
def test_a_wrong_command_line_is_one_line_that_names_the_page_of_help(words, begins, ends):
    done = subprocess.run(
        [sys.executable, "-m", "lorakit", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "40"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(begins)
    assert line.endswith(ends)


@pytest.mark.parametrize("words", [["train", "--help"], ["train", "--foo"], ["recipes", "list"]], ids=" ".join)
def test_a_terminal_gets_no_escape_under_no_color(words):
    assert "\x1b" in on_terminal(*words)
    assert "\x1b" not in on_terminal(*words, NO_COLOR="1")


@pytest.mark.parametrize(("kind", "expected"), [("dumb", progress.Lines), ("xterm", progress.Bar)])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines_in_place_of_a_bar(monkeypatch, kind, expected):
    monkeypatch.setattr(
        progress, "console", lambda: Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": kind})
    )
    assert isinstance(progress.reporter(0), expected)


def test_colons_around_a_word_stay_what_they_are(capfd):
    screen.say("rows/:dog:.csv")
    screen.show("rows/:dog:.csv")
    assert capfd.readouterr() == ("rows/:dog:.csv\n", "rows/:dog:.csv\n")
