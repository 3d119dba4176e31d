"""Rows that are read while training: what the first of them cannot decide, and in which company each is encoded."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from threading import Barrier
from types import SimpleNamespace

import pytest

from every_objective import save_bert
from lorakit.data import decoding, sources
from lorakit.data.batching import share
from lorakit.errors import DataError
from lorakit.workflows import streaming
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
        write(folder / f"{name}.jsonl", written)
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


TEXTS = [{"text": f"The quick fox {number}. " + "The lazy dog. " * (number % 3)} for number in range(600)]
LABELLED = [{"text": f"the fox {number}" + " ran" * (number % 80), "label": "ab"[number % 2]} for number in range(700)]
CUT = {
    "objective": NAMED,
    "data__eval_rows": 2,
    "data__too_long": "drop",
    "data__max_length": 64,
    "data__broken": "skip",
}


@pytest.fixture
def processes(monkeypatch):
    """Reads a stream on several processes, threads here; returns what each yielded, then raised or told."""

    def _processes(stream, world):
        handed, met = [None] * world, Barrier(world, timeout=20)

        def from_each(here, value):
            handed[here.process_index] = pickle.dumps(value)
            met.wait()
            gathered = [pickle.loads(each) for each in handed]
            met.wait()
            return gathered

        def read(rank):
            here = SimpleNamespace(process_index=rank, num_processes=world)
            mine = streaming.Stream(stream.recipe, stream.objective, stream.format, here)
            examples = []
            try:
                examples.extend(mine.read(0))
            except DataError as error:
                return examples, str(error)
            return examples, mine.told()

        monkeypatch.setattr(streaming, "from_each", from_each if world > 1 else lambda here, value: [value])
        with ThreadPoolExecutor(world) as pool:
            return list(pool.map(read, range(world)))

    return _processes


def as_bytes(examples):
    return [(each.row, each.part, each.where, each.ids.tobytes(), each.labels.tobytes()) for each in examples]


@pytest.mark.parametrize("world", [2, 5])
@pytest.mark.parametrize(
    ("rows", "values", "last"),
    [
        (TEXTS, {"objective": {"name": "masked_lm", "nsp": True}}, "pairs of text follow each other"),
        ([*LABELLED, {"text": "", "label": "a"}], CUT, "rows longer than 64 tokens: left out"),
    ],
)
def test_processes_yield_and_tell_what_one_does(tmp_path, bert, processes, rows, values, last, world):
    stream = streamed(tmp_path, bert, rows, **values).stream
    ((examples, told),) = processes(stream, 1)
    for found, said in processes(stream, world):
        assert as_bytes(found) == as_bytes(examples)
        assert said == told
    assert last in told[-1]


def test_no_row_is_encoded_by_two_processes(tmp_path, bert, processes, monkeypatch):
    stream = streamed(tmp_path, bert, LABELLED, **CUT).stream
    encode, seen = type(stream.objective).encode, []

    def counting(self, rows, first=0):
        seen.extend(range(first, first + len(rows)))
        return encode(self, rows, first)

    monkeypatch.setattr(type(stream.objective), "encode", counting)
    processes(stream, 3)
    assert sorted(seen) == list(range(700))


@pytest.mark.parametrize("place", [3, 300, 699])
@pytest.mark.parametrize("fault", [{"text": "the fox"}, {"text": "the fox" * 99, "label": "a"}], ids=["broken", "long"])
def test_an_error_ends_all_processes_where_it_ends_one(tmp_path, bert, processes, fault, place):
    short = [{"text": "the fox", "label": "ab"[number % 2]} for number in range(700)]
    rows = [*short[:place], fault, *short[place:]]
    values = {"data__broken": "error", "data__too_long": "error"}
    stream = streamed(tmp_path, bert, short, objective=NAMED).stream
    write(tmp_path / "rows.jsonl", rows)
    stream.recipe = stream.recipe.model_copy(update={"data": stream.recipe.data.model_copy(update=values)})
    ((examples, error),) = processes(stream, 1)
    assert f"rows.jsonl line {place + 1}" in error
    for found, said in processes(stream, 2):
        assert as_bytes(found) == as_bytes(examples)
        assert said == error


def test_what_one_process_cannot_read_ends_all(tmp_path, bert, processes, monkeypatch):
    stream = streamed(tmp_path, bert, LABELLED, **CUT).stream
    read, readers = sources.stream, count()

    def failing(*arguments, **given):
        fails = next(readers) == 1
        for number, row in enumerate(read(*arguments, **given)):
            if fails and number == 400:
                raise DataError("the disk is gone")
            yield row

    monkeypatch.setattr(sources, "stream", failing)
    assert [said for _, said in processes(stream, 3)] == ["the disk is gone"] * 3


def test_processes_that_read_different_rows_are_an_error(tmp_path, bert, processes, monkeypatch):
    stream = streamed(tmp_path, bert, LABELLED, **CUT).stream
    read, readers = sources.stream, count()

    def shorter(*arguments, **given):
        return islice(read(*arguments, **given), 690 if next(readers) else 700)

    monkeypatch.setattr(sources, "stream", shorter)
    for _, said in processes(stream, 2):
        assert "the processes do not read the same rows of data.train: " in said
        assert "690" in said
        assert "700" in said


def write(file, rows):
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _two(folder) -> str:
    file = folder / "two.jsonl"
    file.write_text('{"text": "A fox. It ran."}\n{"text": "A dog. It sat."}\n', encoding="utf-8")
    return str(file)
