"""Rows that are read while training: what the first of them cannot decide, and in which company each is encoded."""

from __future__ import annotations

import json

import pytest

from every_objective import save_bert
from lorakit.data import decoding
from lorakit.data.batching import share
from lorakit.errors import DataError
from lorakit.workflows.preparing import prepare_rows
from runs import recipe

SORTED = [{"text": f"the fox {number}", "label": "a" if number < 120 else "b"} for number in range(130)]
TAGGED = [{"tokens": ["the", "fox"], "tags": ["O", "O" if number < 120 else "B-name"]} for number in range(130)]
SCORED = [{"text": f"the fox {number}", "score": number / 10} for number in range(130)]
NAMED = {"name": "sequence_classification", "labels": ["a", "b"]}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("streamed") / "bert")


def streamed(folder, bert, rows, **values):
    """The rows of a run that reads them while training, and evaluates on the first and the last two."""
    for name, written in (("rows", rows), ("eval", [*rows[:2], *rows[-2:]])):
        lines = "".join(f"{json.dumps(row)}\n" for row in written)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    stream = {"data__stream": True, "data__eval": str(folder / "eval.jsonl"), "train__epochs": None}
    loaded = recipe(bert, folder / "rows.jsonl", **{**stream, "train__max_steps": 1, **values})
    return prepare_rows(loaded.recipe)


@pytest.mark.parametrize(("rows", "name"), [(SORTED, "sequence_classification"), (TAGGED, "token_classification")])
def test_labels_of_a_stream_are_to_be_named(tmp_path, bert, rows, name):
    with pytest.raises(DataError, match=rf"--set objective\.name={name} --set 'objective\.labels=\[ONE, TWO"):
        streamed(tmp_path, bert, rows)


def test_all_rows_of_a_sorted_stream_are_read_where_the_labels_are_named(tmp_path, bert):
    found = streamed(tmp_path, bert, SORTED, objective=NAMED)
    assert [int(example.labels[0]) for example in found.stream.read(0)] == [0] * 120 + [1] * 10


def test_weights_of_a_stream_are_to_be_named(tmp_path, bert):
    with pytest.raises(DataError, match=r"objective\.class_weights=\{ONE: 1\.0"):
        streamed(tmp_path, bert, SORTED, objective={**NAMED, "class_weights": "balanced"})
    streamed(tmp_path, bert, SORTED, objective={**NAMED, "class_weights": {"b": 9.0}})


def test_scores_of_a_stream_need_no_names(tmp_path, bert):
    assert len(list(streamed(tmp_path, bert, SCORED).stream.read(0))) == 130


@pytest.mark.parametrize("count", [256, 257, 513])
def test_the_last_document_of_a_stream_finds_a_random_neighbour(tmp_path, bert, count):
    rows = [{"text": f"The quick fox {number}. The lazy dog."} for number in range(count)]
    found = streamed(tmp_path, bert, rows, objective={"name": "masked_lm", "nsp": True})
    assert {example.row for example in found.stream.read(0)} == set(range(count))


def test_rows_that_are_skipped_leave_no_document_alone(tmp_path, bert):
    rows = [
        {"text": f"The quick fox {number}. The lazy dog." if number in (0, 1, 300) else ""} for number in range(301)
    ]
    found = streamed(
        tmp_path,
        bert,
        rows,
        objective={"name": "masked_lm", "nsp": True},
        data__broken="skip",
        data__eval=_two(tmp_path),
    )
    assert {example.row for example in found.stream.read(0)} == {0, 1, 2}
    assert any("298 of 301 rows skipped" in note for note in found.streamed())


def test_rows_come_before_the_file_was_read_through(tmp_path, bert, monkeypatch):
    monkeypatch.setattr(decoding, "_BEGINNING", 4096)
    monkeypatch.setattr(decoding, "_CHUNK", 1024)
    rows = [{"text": f"the fox {number}", "score": 0.5} for number in range(3000)]
    found = streamed(tmp_path, bert, rows)
    with (tmp_path / "rows.jsonl").open("ab") as stream:
        stream.write(b'{"text": "caf\xe9", "score": 1}\n')
    examples = found.stream.read(0)
    assert [next(examples).row for _ in range(512)] == list(range(512))
    with pytest.raises(DataError, match=r"rows\.jsonl: 0xe9 stands behind the first .* does not fit .* utf-8"):
        list(examples)


@pytest.mark.parametrize("skip", [0, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_a_stream_without_a_loss_or_a_double(tmp_path, bert, world, skip):
    values = {"train__rows_per_step": 7, "train__max_steps": 19, "data__stream_buffer": 20}
    found = streamed(tmp_path, bert, SCORED, **values)
    steps = list(found.plan.steps())
    assert sorted(example.row for _, step in steps for example in step) == list(range(130))
    shared = [
        sorted(example.row for rank in range(world) for example in share(step, rank, world))
        for _, step in found.plan.steps(skip)
    ]
    assert shared == [sorted(example.row for example in step) for _, step in steps[skip:]]


def _two(folder) -> str:
    file = folder / "two.jsonl"
    file.write_text('{"text": "A fox. It ran."}\n{"text": "A dog. It sat."}\n', encoding="utf-8")
    return str(file)
