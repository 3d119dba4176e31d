"""`lorakit evaluate`: numbers on stdout, prose on stderr, one object with --json, and 1 for a user's mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from lorakit import __main__ as program
from lorakit.cli.evaluation_tables import class_table, confusion_table, score_table
from lorakit.cli.screen import show_fitting
from lorakit.metrics.classes import ClassScore
from lorakit.metrics.intervals import Score
from lorakit.workflows.evaluating import Evaluation, Side


def run(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lorakit", *map(str, words)])
    with pytest.raises(SystemExit) as leaving:
        program.run()
    return leaving.value.code or 0


def made(labels=("cat", "dog"), **changes) -> Evaluation:
    confusion = [[9 if row == column else row for column in range(len(labels))] for row in range(len(labels))]
    table = [ClassScore(label, 0.5, 0.25, 1 / 3, 9) for label in labels]
    side = Side("runs/one", {"accuracy": Score(0.873, 0.851, 0.892)}, table, confusion)
    values = {"objective": "sequence_classification", "rows": 18, "units": 18, "origin": "rows.csv", "data": "sha256:0"}
    return Evaluation(**{**values, "target": side, "labels": tuple(labels), **changes})


def shown(capfd, table) -> list[str]:
    show_fitting(table)
    return capfd.readouterr().out.splitlines()


def test_numbers_go_to_stdout_and_prose_to_stderr(gpt2_folder, pairs_file):
    command = [sys.executable, "-m", "lorakit", "evaluate", str(gpt2_folder), "--data", str(pairs_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["perplexity", "bits", "next"]
    assert "causal_lm on 24 rows · pairs.jsonl" in done.stderr


def test_of_one_row_brackets_are_not_explained_and_it_is_called_a_row(gpt2_folder, tmp_path, monkeypatch, capfd):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "It will rain tomorrow."}\n', encoding="utf-8")
    assert run(monkeypatch, "evaluate", gpt2_folder, "--data", file) == 0
    said = capfd.readouterr().err
    assert "causal_lm on 1 row · rows.jsonl" in said
    assert "in brackets" not in said


def test_json_is_one_object_and_holds_every_number(gpt2_folder, pairs_file, monkeypatch, capfdbinary):
    assert run(monkeypatch, "evaluate", gpt2_folder, "--data", pairs_file, "--against", gpt2_folder, "--json") == 0
    found = json.loads(capfdbinary.readouterr().out)
    assert found["differences"]["perplexity"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["target"]["scores"] == found["against"]["scores"]


def test_columns_are_named_as_in_train(gpt2_folder, tmp_path, monkeypatch, capfdbinary):
    file = tmp_path / "rows.csv"
    file.write_text("mr,ref\nfood,It serves food.\narea,It is central.\n", encoding="utf-8")
    named = ("--set", "data.columns.prompt=mr", "--set", "data.columns.completion=ref")
    assert run(monkeypatch, "evaluate", gpt2_folder, "--data", file, *named, "-q") == 0
    out, err = capfdbinary.readouterr()
    assert b"perplexity" in out
    assert err == b""


def test_a_sample_is_asked_for_by_an_option_or_by_the_key_of_the_recipe(
    gpt2_folder, pairs_file, monkeypatch, capfdbinary
):
    found = []
    for asked in (("--rows", "5"), ("--set", "data.rows=5"), ("--rows", "5", "--set", "data.rows=5")):
        assert run(monkeypatch, "evaluate", gpt2_folder, "--data", pairs_file, *asked, "--json") == 0
        found.append(json.loads(capfdbinary.readouterr().out))
    assert found[0]["rows"] == 5
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "method.rank=8"), "only keys of data"),
        (("--set", "data.colums.text=a"), "Did you mean 'columns'"),
        (("--set", "data.train=other.jsonl"), "told by --data"),
        (("--set", "data.eval=0.2"), "evaluate does not read data.eval"),
        (("--set", "data.eval_rows=3"), "evaluate does not read data.eval_rows"),
        (("--set", "data.stream=true"), "evaluate does not read data.stream"),
        (("--set", "data.stream_buffer=5"), "evaluate does not read data.stream_buffer"),
        (("--set", "data.rows=3", "--rows", "4"), "--rows is 4 and data.rows 3: give one of them"),
        (("--against", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_said_in_a_line_and_leaves_with_1(gpt2_folder, pairs_file, monkeypatch, capfd, words, message):
    assert run(monkeypatch, "evaluate", gpt2_folder, "--data", pairs_file, *words) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err


def test_rows_that_cannot_be_used_are_refused_in_the_words_of_a_measurement(gpt2_folder, tmp_path, monkeypatch, capfd):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": ""}\n{"prompt": "a", "completion": "b"}\n')
    assert run(monkeypatch, "evaluate", str(gpt2_folder), "--data", str(rows)) == 1
    said = capfd.readouterr().err
    assert "\nNothing was measured. Mend the rows, or skip" in said
    assert "trained" not in said


def test_a_score_is_shown_with_its_interval_and_a_difference_with_signs(capfd):
    other = Side("base", {"accuracy": Score(0.86, 0.84, 0.88)})
    found = made(against=other, differences={"accuracy": Score(0.013, -0.002, 0.028)})
    assert shown(capfd, score_table(found))[1].split() == (
        ["accuracy", "%", "87.3", "(85.1–89.2)", "86.0", "(84.0–88.0)", "+1.3", "(-0.2", "to", "+2.8)"]
    )


def compared() -> Evaluation:
    """Two models with long names, large numbers and as many labels as a whole matrix may have."""
    scores = {"perplexity": Score(12345.67, 9876.54, 23456.78), "accuracy": Score(0.873, 0.851, 0.892)}
    differences = {"perplexity": Score(-1234.56, -2345.67, 345.67), "accuracy": Score(0.013, -0.002, 0.028)}
    whole = made([f"label {letter}" for letter in "abcdefghijkl"])
    target = replace(whole.target, name="runs/quickstart-classify/a", scores=scores)
    other = replace(target, name="checkpoints/of-another-run/b, new head")
    return replace(whole, target=target, against=other, differences=differences)


@pytest.mark.parametrize("table", [score_table, class_table, confusion_table])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_every_number_of_a_wide_table_stands_whole_in_a_narrow_one(capfd, monkeypatch, table, alone, width):
    found = replace(compared(), against=None) if alone else compared()
    number = re.compile(r"[-+]?\d[\d,.]*")
    wide = Counter(number.findall("\n".join(shown(capfd, table(found)))))
    monkeypatch.setenv("COLUMNS", str(width))
    narrow = shown(capfd, table(found))
    assert wide <= Counter(number.findall("\n".join(narrow)))
    assert max(map(len, narrow)) <= width


def test_of_names_too_long_for_the_terminal_the_ends_are_shown(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    narrow = shown(capfd, score_table(compared()))
    assert narrow[0] == "perplexity"
    assert [line.split()[0] for line in narrow[1:4]] == ["…s/quickstart-classify/a", "…another-run/b,", "difference"]
    assert len({line.index("(") for line in narrow if "(" in line}) == 1


def test_what_is_undefined_is_a_dash_and_never_nan(capfd):
    side = Side("one", {"pearson": Score(None)})
    assert shown(capfd, score_table(made(target=side)))[1].split() == ["Pearson", "correlation", "—"]


def test_few_labels_are_shown_as_a_matrix_and_many_as_the_worst_pairs(capfd):
    few = shown(capfd, confusion_table(made()))
    assert [line.split() for line in few[1:]] == [["cat", "9", "·"], ["dog", "1", "9"]]
    many = shown(capfd, confusion_table(made([f"label {number:02}" for number in range(20)])))
    assert len(many) == 1 + 10
    assert many[1].split() == ["label", "19", "label", "00", "19"]


def test_of_very_many_classes_the_worst_are_shown(capfd):
    lines = shown(capfd, class_table(made([f"label {number:02}" for number in range(40)])))
    assert lines[0].startswith("10 worst of 40")
    assert len(lines) == 11


def test_labels_cannot_reach_the_terminal_as_markup_or_escapes(capfd):
    lines = shown(capfd, class_table(made(("[red]x[/red]", "a\x1b[31mb"))))
    assert lines[1].startswith("[red]x[/red]")
    assert "\x1b" not in lines[2]
