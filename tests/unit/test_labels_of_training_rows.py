"""Labels, tags and class weights are those of the rows that learn: a share or a sample is taken off before."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from every_objective import save_bert
from lorakit.errors import DataError
from lorakit.workflows.preparing import prepare_rows
from runs import recipe


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("labels") / "bert")


def labelled(*names: str) -> list[dict]:
    return [{"text": f"the fox {number}", "label": name} for number, name in enumerate(names)]


def tagged(*names: str) -> list[dict]:
    return [{"tokens": ["the", f"fox{number}"], "tags": ["O", name]} for number, name in enumerate(names)]


def prepared(folder, bert, rows, evaluation=None, **values):
    for name, written in (("train", rows), ("eval", evaluation or [])):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in written), encoding="utf-8")
    given = {"data__eval": str(folder / "eval.jsonl")} if evaluation else {}
    return prepare_rows(recipe(bert, folder / "train.jsonl", **given, **values).recipe)


@pytest.mark.parametrize(
    ("rows", "evaluation", "field"),
    [
        (labelled(*"abab"), labelled(*"abc"), "label is 'c'"),
        (tagged("B-x", "O"), tagged("B-x", "B-y"), "the tag 'B-y'"),
    ],
)
def test_a_label_of_evaluation_rows_alone_is_refused_with_row_and_field(tmp_path, bert, rows, evaluation, field):
    with pytest.raises(DataError, match=rf"eval\.jsonl line \d.*{field}.*objective\.labels"):
        prepared(tmp_path, bert, rows, evaluation)


def test_a_label_that_the_split_takes_off_is_refused_too(tmp_path, bert):
    # Each of two texts has a label of its own, and one of them is evaluated on.
    rows = labelled("a", "b") * 3
    said = r"nothing to tell apart: all 3 training rows have the label '.', and evaluation rows alone have '.'\."
    with pytest.raises(DataError, match=said):
        prepared(tmp_path, bert, rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (labelled("pos", "neg"), r"the one training row has the label '(pos|neg)', and evaluation rows alone have '"),
        (tagged("B-x", "O"), r"the tags are 'O', and evaluation rows alone have 'B-x'"),
    ],
)
def test_a_second_label_that_went_to_evaluation_is_said_to_be_there(tmp_path, bert, rows, said):
    with pytest.raises(DataError, match=rf"{said}.*Give more rows of each (label|tag).*data\.eval=FILE"):
        prepared(tmp_path, bert, rows)


def test_rows_that_have_one_label_alone_are_asked_for_a_second(tmp_path, bert):
    with pytest.raises(DataError, match=r"the one training row has the label 'a'\. Give rows of at least two labels"):
        prepared(tmp_path, bert, labelled("a", "a"))


@pytest.mark.parametrize(
    ("rows", "evaluation", "settings"),
    [
        (labelled(*"abab"), labelled(*"abc"), {"name": "sequence_classification", "labels": ["a", "b", "c"]}),
        (tagged("B-x", "O"), tagged("B-x", "B-y"), {"name": "token_classification", "labels": ["O", "B-x", "B-y"]}),
    ],
)
def test_a_label_that_the_recipe_names_and_no_row_teaches_is_counted(tmp_path, bert, rows, evaluation, settings):
    found = prepared(tmp_path, bert, rows, evaluation, objective=settings)
    assert found.settings.labels == settings["labels"]
    (said,) = [note for note in found.report.notes if "no training row" in note]
    assert said == f"no training row has 1 of the 3 labels: {settings['labels'][-1]!r}"


def test_balanced_weights_are_those_of_the_rows_that_learn(tmp_path, bert):
    settings = {"name": "sequence_classification", "class_weights": "balanced"}
    found = prepared(tmp_path, bert, labelled(*"aaabaaabaaabaaab" * 3), data__rows=13, objective=settings)
    numbers = Counter(found.settings.labels[int(example.labels[0])] for example in found.plan.examples)
    assert sum(numbers.values()) == 13
    assert found.settings.class_weights == {label: 13 / (2 * count) for label, count in numbers.items()}


def test_a_sample_of_the_rows_keeps_every_label(tmp_path, bert):
    found = prepared(tmp_path, bert, labelled(*"a" * 60, "b", "c"), data__rows=4)
    assert found.settings.labels == ["a", "b", "c"]
    assert len(found.plan.examples) == 4
