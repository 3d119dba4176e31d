"""The bar of a run, drawn on terminals of several widths."""

import io
import re

import pytest
from rich.console import Console

from lorakit.cli import progress
from lorakit.training.events import EvaluationEvent, NoteEvent, StepEvent


@pytest.fixture
def screen(monkeypatch):
    """Draw the last moment of a run on a terminal of a given width; return what stands there, without colours."""

    def draw(width):
        console = Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False)
        monkeypatch.setattr(progress, "console", lambda: console)
        bar = progress.Bar()
        bar.report(EvaluationEvent(0, 6.089, 0, 6.089))
        bar.report(StepEvent(180, 200, 36, 0.004, 0.1, 1.4e-4, 12_774.0, 83.0))
        bar.report(EvaluationEvent(180, 0.549, 60, 0.13))
        bar.report(StepEvent(181, 200, 37, 0.003, 0.1, 1.4e-4, 12_774.0, 82.0))
        bar.close()
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue()).rstrip().splitlines()[-2:]

    return draw


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_terminal_of_80_columns_and_more_shows_every_word(screen, width):
    first, second = screen(width)
    for words in ("epoch 37", "90%", "step 181/200", "loss 0.003", "eval 0.549 (best 0.130, step 60)", "━"):
        assert words in first
    assert re.fullmatch(r"lr 1\.4e-04  12,774 tok/s  \d+\.\d GB  1:22 left", second.strip())


def test_a_bar_that_never_moved_leaves_nothing_behind(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(progress, "console", lambda: console)
    bar = progress.Bar()
    bar.report(EvaluationEvent(0, 6.0, 0, 6.0))
    bar.close()
    assert console.file.getvalue() == ""


def test_lines_into_a_pipe_carry_the_step_and_its_evaluation(monkeypatch):
    said = []
    monkeypatch.setattr(progress, "say", said.append)
    lines = progress.Lines(every_step=False)
    lines.report(StepEvent(2, 4, 1, 1.5, 0.1, 2e-4, 1000.0, 3.0))
    lines.report(EvaluationEvent(2, 1.25, 2, 1.25))
    lines.report(NoteEvent("a note"))
    assert said == ["epoch 1  step 2/4  loss 1.500  lr 2.0e-04  1,000 tok/s  0:03 left  eval 1.250 (best)", "a note"]
