"""How the program leaves: an exit code and one line, never a traceback."""

import errno
import os
import shlex
import subprocess
import sys

import pytest

from lorakit import __main__ as program
from lorakit.cli import main
from lorakit.errors import Interrupted


def leave(monkeypatch, capsys, raising):
    """Run with a command that fails; return the exit code and what stderr was told."""
    monkeypatch.setattr(main, "app", raising)
    with pytest.raises(SystemExit) as leaving:
        program.run()
    return leaving.value.code, capsys.readouterr().err


def shell(line):
    done = subprocess.run(
        ["bash", "-c", line.replace("lorakit", f"{shlex.quote(sys.executable)} -m lorakit")],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stderr


def test_ctrl_c_leaves_with_130_and_one_line(monkeypatch, capsys):
    def raising(**_):
        raise KeyboardInterrupt

    assert leave(monkeypatch, capsys, raising) == (130, "stopped; nothing was written.\n")


def test_ctrl_c_pressed_again_leaves_with_130_and_one_line():
    impatient = """
import os, signal
from lorakit import __main__ as program
from lorakit.cli import main, screen

def stopped(**_):
    raise KeyboardInterrupt

def told(words):
    os.kill(os.getpid(), signal.SIGINT)
    say(words)

say, screen.say, main.app = screen.say, told, stopped
program.run()
"""
    done = subprocess.run([sys.executable, "-c", impatient], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (130, "stopped; nothing was written.\n")


def test_ctrl_c_in_a_command_leaves_with_130_and_one_line(monkeypatch, capsys):
    import typer

    silent = typer.Typer()

    @silent.command()
    def command():
        raise KeyboardInterrupt

    assert leave(monkeypatch, capsys, lambda **how: silent([], **how)) == (130, "stopped; nothing was written.\n")


def test_an_import_that_ctrl_c_cut_short_is_no_missing_module(monkeypatch, capsys):
    def raising(**_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("Could not import module 'GPT2LMHeadModel'") from error

    assert leave(monkeypatch, capsys, raising) == (130, "stopped; nothing was written.\n")


def test_what_was_saved_before_ctrl_c_is_told(monkeypatch, capsys):
    def raising(**_):
        raise Interrupted(2, "stopped; 3 answers written.")

    assert leave(monkeypatch, capsys, raising) == (130, "stopped; 3 answers written.\n")


def test_a_programming_fault_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(main, "app", lambda **_: {}["x"])
    with pytest.raises(KeyError):
        program.run()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line():
    code, told = shell("lorakit --version > /dev/full")
    assert code == 1
    assert told.startswith("error: the disk is full")
    assert len(told.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_a_closed_stdout_is_told():
    assert shell("lorakit generate no-such-model hi >&-") == (
        1,
        "error: stdout is closed; send it to a file, or to /dev/null where it is not wanted.\n",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_a_closed_stdin_pipes_nothing_in():
    code, told = shell("lorakit generate no-such-model <&-")
    assert (code, told.splitlines()[0]) == (1, 'error: nothing was piped in; give a prompt, "" to start from nothing.')


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EACCES, "permission denied"), (errno.EROFS, "nothing can be"), (errno.ENAMETOOLONG, "longer than")],
)
def test_a_file_that_the_system_refuses_is_named_in_one_line(monkeypatch, capsys, number, said):
    def raising(**_):
        raise OSError(number, os.strerror(number), "runs/answers/hashes.json")

    code, told = leave(monkeypatch, capsys, raising)
    assert code == 1
    assert told.startswith(f"error: runs/answers/hashes.json: {said}")
    assert len(told.splitlines()) == 1


def test_a_file_that_lorakit_itself_has_lost_keeps_its_traceback(monkeypatch):
    def raising(**_):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone")

    monkeypatch.setattr(main, "app", raising)
    with pytest.raises(FileNotFoundError):
        program.run()
