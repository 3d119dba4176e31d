"""`generate --input`: what is refused before any work, and what is kept when the work is cut short."""

import json
import os
import signal

import pytest
from typer.testing import CliRunner

from lorakit.cli import counting
from lorakit.cli.main import app
from lorakit.errors import Interrupted, LorakitError
from lorakit.workflows import generating
from lorakit.workflows.prompt_files import answer_file


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, ["generate", *map(str, arguments)], input=stdin)


@pytest.fixture
def prompts(tmp_path):
    source = tmp_path / "p.txt"
    source.write_text("one\na long prompt of several words\nthree\n", encoding="utf-8")
    return source


@pytest.fixture
def one_by_one(monkeypatch):
    """Answer one prompt at a time, in the file's order."""
    monkeypatch.setattr(generating, "by_length", lambda lengths, _: [[number] for number in range(len(lengths))])


@pytest.fixture
def interrupted_in_the_third(monkeypatch, one_by_one):
    from lorakit.generation import decoding

    whole, calls = decoding._Writing.begin, []

    def begin(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(decoding._Writing, "begin", begin)


def refused(prompts, output):
    """Return why an output is refused; the target does not exist, so it is refused before any work."""
    result = run("no-such-model", "--input", prompts, "-o", output, "--force")
    assert isinstance(result.exception, LorakitError)
    return str(result.exception)


def test_the_prompts_are_not_replaced_by_their_answers(prompts):
    before = prompts.read_bytes()
    assert "the prompts are read from" in refused(prompts, prompts)
    assert prompts.read_bytes() == before


def test_the_prompts_are_not_replaced_through_a_link(prompts, tmp_path):
    (tmp_path / "link.txt").symlink_to(prompts)
    assert "the prompts are read from" in refused(prompts, tmp_path / "link.txt")
    assert "the prompts are read from" in refused(tmp_path / "link.txt", prompts)


def test_a_pipe_is_no_output(prompts, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "a device or a pipe" in refused(prompts, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_is_no_output(prompts):
    assert "a device or a pipe" in refused(prompts, "/dev/null")


def test_a_folder_is_no_output(prompts, tmp_path):
    assert "is a folder" in refused(prompts, tmp_path)


def test_a_folder_that_does_not_exist_is_not_made(prompts, tmp_path):
    assert "does not exist" in refused(prompts, tmp_path / "none" / "answers.jsonl")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("piped", ["", "\n"])
def test_nothing_piped_in_is_no_prompt(piped):
    result = run("no-such-model", stdin=piped)
    assert isinstance(result.exception, LorakitError)
    assert "nothing was piped in" in str(result.exception)


def test_ctrl_c_keeps_the_finished_lines_beside_the_output(gpt2_folder, prompts, tmp_path, interrupted_in_the_third):
    written = tmp_path / "answers.jsonl"
    written.write_text("mine", encoding="utf-8")
    result = run(gpt2_folder, "--input", prompts, "-o", written, "--force", "--max-new-tokens", "2")
    assert isinstance(result.exception, Interrupted)
    assert result.exception.exit_code == 130
    assert f"the 2 finished lines are kept in {written}.partial" in str(result.exception)
    kept = (tmp_path / "answers.jsonl.partial").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prompt"] for line in kept] == ["one", "a long prompt of several words"]
    assert written.read_text(encoding="utf-8") == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["answers.jsonl", "answers.jsonl.partial", "p.txt"]


def test_ctrl_c_keeps_a_finished_answer_behind_an_unfinished_one(
    gpt2_folder, prompts, tmp_path, interrupted_in_the_third, monkeypatch
):
    monkeypatch.setattr(generating, "by_length", lambda lengths, _: [[2], [1], [0]])
    run(gpt2_folder, "--input", prompts, "-o", tmp_path / "a.jsonl", "--max-new-tokens", "2")
    kept = (tmp_path / "a.jsonl.partial").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prompt"] for line in kept] == ["a long prompt of several words", "three"]


def test_ctrl_c_finds_the_finished_lines_on_stdout(gpt2_folder, prompts, interrupted_in_the_third):
    result = run(gpt2_folder, "--input", prompts, "--max-new-tokens", "2")
    assert "stopped; 2 answers written" in str(result.exception)
    assert result.exception.exit_code == 128 + signal.SIGINT
    assert len(result.stdout.splitlines()) == 2


def test_an_error_keeps_the_finished_lines(tmp_path):
    with pytest.raises(LorakitError, match=r"broken\nthe 1 finished line is kept"):
        fail_after(tmp_path / "a.jsonl", 1, LorakitError("broken"))
    assert (tmp_path / "a.jsonl.partial").read_text(encoding="utf-8") == "0\n"


def test_ctrl_c_before_the_first_line_leaves_nothing(tmp_path):
    with pytest.raises(Interrupted, match="nothing was written"):
        fail_after(tmp_path / "a.jsonl", 0, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def fail_after(path, lines, error):
    with answer_file(path) as write:
        for number in range(lines):
            write(str(number))
        raise error


def test_a_log_is_told_how_far_it_is(gpt2_folder, prompts, one_by_one, monkeypatch):
    monkeypatch.setattr(counting, "SECONDS_BETWEEN_LINES", 0.0)
    result = run(gpt2_folder, "--input", prompts, "--max-new-tokens", "1")
    assert "1 of 3 prompts answered" in result.stderr
    assert "2 of 3 prompts answered" in result.stderr


def test_quiet_counts_nothing(gpt2_folder, prompts, one_by_one, monkeypatch):
    monkeypatch.setattr(counting, "SECONDS_BETWEEN_LINES", 0.0)
    assert run(gpt2_folder, "--input", prompts, "--max-new-tokens", "1", "-q").stderr == ""


def test_an_answer_is_on_stdout_before_the_next_prompt_is_read(gpt2_folder, prompts, one_by_one, monkeypatch):
    from lorakit.cli import screen
    from lorakit.generation import decoding

    events, whole = [], decoding._Writing.begin
    monkeypatch.setattr(screen, "emit", lambda text: events.append("line"))
    monkeypatch.setattr(decoding._Writing, "begin", lambda *a: (events.append("read"), whole(*a))[1])
    run(gpt2_folder, "--input", prompts, "--max-new-tokens", "1")
    assert events == ["read", "line"] * 3


def test_steps_of_a_beam_search_are_refused_before_any_work():
    result = run("no-such-model", "x", "--show-steps", "--num-beams", "2")
    assert "beam search" in str(result.exception)
    assert result.stdout == ""
