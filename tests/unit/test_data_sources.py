"""Rows from files, folders, standard input and the Hub."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from lorakit.data.settings import DataSettings, SourceSettings
from lorakit.data.sources import read, stream
from lorakit.errors import DataError

LOOKS_LIKE_A_VALUE = (
    *("2024-01-01", "NA", "null", "None", "nan", "007", "True", "false"),
    *("1e5", "1_000", "-0", "", "  ", "=1", "12345678901234567890"),
)
texts = some.lists(
    some.text(some.characters(exclude_categories=("Cs",), exclude_characters="\0")), min_size=1, max_size=8
)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)


def rows_of(path: Path, **options):
    return read(str(path), DataSettings(train=str(path), **options)).rows


def column(path: Path, name: str = "text", **options) -> list[object]:
    return [row.fields[name] for row in rows_of(path, **options)]


def write_jsonl(path: Path, values) -> Path:
    path.write_bytes("".join(json.dumps({"text": value}, ensure_ascii=False) + "\n" for value in values).encode())
    return path


def write_csv(path: Path, values, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([["text", "other"], *([value, "x"] for value in values)])
    return path


@in_one_folder
@given(texts)
def test_any_text_survives_jsonl(tmp_path, values):
    assert column(write_jsonl(tmp_path / "rows.jsonl", values)) == values


@in_one_folder
@given(texts)
def test_any_text_survives_json_with_escapes(tmp_path, values):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": value} for value in values], indent=1))
    assert column(path) == values


@in_one_folder
@given(texts)
def test_any_text_survives_csv(tmp_path, values):
    assert column(write_csv(tmp_path / "rows.csv", values)) == values


@in_one_folder
@given(texts)
def test_any_text_survives_quoted_tsv(tmp_path, values):
    assert column(write_csv(tmp_path / "rows.tsv", values, "\t"), quotes=True) == values


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_text_that_looks_like_a_value_stays_text(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, LOOKS_LIKE_A_VALUE)
    elif suffix == "parquet":
        write_parquet(path, LOOKS_LIKE_A_VALUE)
    else:
        write_csv(path, LOOKS_LIKE_A_VALUE, "," if suffix == "csv" else "\t")
    assert column(path, quotes=True) == list(LOOKS_LIKE_A_VALUE)


def write_parquet(path: Path, values) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": pyarrow.array(values, pyarrow.string())}), path)
    return path


def test_numbers_of_json_stay_numbers_so_that_nothing_turns_them_into_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": 7, "n": null, "t": true, "big": 123456789012345678901234567890}\n')
    assert rows_of(path)[0].fields == {"text": 7, "n": None, "t": True, "big": 123456789012345678901234567890}


def test_quotes_are_plain_text_in_tsv_unless_asked(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"아주 "좋은" 영화\t1\n')
    assert column(path) == ['"아주 "좋은" 영화']


def test_lines_are_physical_lines_where_a_quoted_field_holds_newlines(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text\n"one\ntwo\nthree"\nfour\n\nfive\n')
    assert [row.line for row in rows_of(path)] == [2, 5, 7]


def test_lines_of_json_are_where_each_object_begins(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(
        '{"version": 1,\n "empty": [],\n "data": [\n  {"text": "a"}, {"text": "[b]"},\n\n  {"text":\n "c"}]}'
    )
    assert [(row.line, row.fields["text"]) for row in rows_of(path)] == [(4, "a"), (4, "[b]"), (6, "c")]


def test_json_with_one_object_a_line_is_read_as_jsonl(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    reading = read(str(path), DataSettings(train=str(path)))
    assert [row.fields["text"] for row in reading.rows] == ["a", "b"]
    assert "read as JSONL" in reading.notes[0]


def test_documents_are_separated_by_two_blank_lines(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_bytes(b"\n\nfirst\r\n\r\n still first\r\n\r\n \r\nsecond\n\n\n\n\nthird")
    assert [(row.fields["text"], row.line) for row in rows_of(path)] == [
        ("first\n\n still first", 3),
        ("second", 8),
        ("third", 13),
    ]


def test_a_text_file_is_a_table_where_its_first_line_holds_the_named_columns(tmp_path):
    path = tmp_path / "ratings.txt"
    path.write_text("id\tdocument\tlabel\n007\t좋은 영화\t1\n")
    assert column(path, "id", columns={"text": "document"}) == ["007"]


def test_a_text_file_that_looks_like_a_table_is_noted(tmp_path):
    path = tmp_path / "ratings.txt"
    path.write_text("id\tdocument\n007\t좋은 영화\n")
    assert "looks like a table" in read(str(path), DataSettings(train=str(path))).notes[0]


def test_every_kind_is_read_from_gzip_too(tmp_path):
    for name, content in {
        "a.jsonl": b'{"text": "x"}\n',
        "b.json": b'[{"text": "x"}]',
        "c.csv": b"text,n\nx,1\n",
        "d.tsv": b"text\tn\nx\t1\n",
        "e.txt": b"x\n",
        "f.md": b"x",
        "g.ndjson": b'{"text": "x"}',
    }.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    packed = gzip.compress(write_parquet(tmp_path / "h.parquet", ["x"]).read_bytes())
    (tmp_path / "h.parquet.gz").write_bytes(packed)
    assert column(tmp_path) == ["x"] * 9


def test_a_folder_is_read_by_name_and_what_is_not_read_is_listed(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write_jsonl(tmp_path / "b.jsonl", ["second"])
    write_jsonl(tmp_path / "a.jsonl", ["first"])
    write_jsonl(tmp_path / "deep" / "er" / "c.jsonl", ["third"])
    (tmp_path / "picture.png").write_bytes(b"")
    write_jsonl(tmp_path / ".hidden.jsonl", ["no"])
    reading = read(str(tmp_path), DataSettings(train=str(tmp_path)))
    assert [(row.source, row.fields["text"]) for row in reading.rows] == [
        ("a.jsonl", "first"),
        ("b.jsonl", "second"),
        ("deep/er/c.jsonl", "third"),
    ]
    assert ".hidden.jsonl, picture.png" in reading.notes[0]


def test_paths_are_relative_to_the_base_folder(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ["x"])
    assert len(read("rows.jsonl", DataSettings(train="rows.jsonl"), base_dir=tmp_path).rows) == 1


@pytest.mark.parametrize(
    "name", ["; touch PWNED.jsonl", "$(x).jsonl", "-o.jsonl", "a\nb.jsonl", 'it\'s "q".jsonl', "\udcff.jsonl"]
)
def test_a_strange_file_name_is_only_a_name(tmp_path, name):
    write_jsonl(tmp_path / name, ["x"])
    (row,) = rows_of(tmp_path)
    assert row.source.isprintable()
    assert sorted(os.listdir(tmp_path)) == [name]


@pytest.mark.parametrize("name", ["; touch PWNED.jsonl", "$(x).jsonl", "-o.jsonl", "a\nb.jsonl", 'it\'s "q".jsonl'])
def test_a_strange_file_name_can_be_named(tmp_path, name):
    write_jsonl(tmp_path / name, ["x"])
    assert len(read(name, DataSettings(train=name), base_dir=tmp_path).rows) == 1


def test_a_composed_name_finds_a_file_whose_name_is_decomposed(tmp_path):
    write_jsonl(tmp_path / unicodedata.normalize("NFD", "한글.jsonl"), ["x"])
    assert column(tmp_path / unicodedata.normalize("NFC", "한글.jsonl")) == ["x"]


@pytest.mark.parametrize(
    ("content", "fields", "called"),
    [
        ('\n {"text": "a"}\n', {"text": "a"}, "JSONL"),
        ('[{"text": "a"}]', {"text": "a"}, "JSON"),
        ("prompt,completion\n007,NA\n", {"prompt": "007", "completion": "NA"}, "CSV"),
        ("mr,ref\n007,NA\n", {"mr": "007", "ref": "NA"}, "CSV"),
        ("mr\tcompletion\n1\t2\n", {"mr": "1", "completion": "2"}, "TSV"),
        ("Once upon a time, there was\na text.\n", {"text": "Once upon a time, there was\na text."}, "plain text"),
    ],
)
def test_standard_input_is_known_by_its_first_line(monkeypatch, content, fields, called):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    reading = read("-", DataSettings(train="-"))
    assert [row.fields for row in reading.rows] == [fields]
    assert reading.notes[0] == f"standard input: read as {called}, by its first line."


def test_standard_input_can_be_streamed_once_an_epoch(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n')))
    passes = [list(stream("-", DataSettings(train="-"))) for _ in range(2)]
    assert passes[0] == passes[1]
    assert len(passes[0]) == 1


def test_a_terminal_as_standard_input_is_refused(monkeypatch):
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO()))
    with pytest.raises(DataError, match="nothing is piped"):
        read("-", DataSettings(train="-"))


def test_a_weight_repeats_whole_and_samples_the_fraction(tmp_path):
    heavy = SourceSettings(path=str(write_jsonl(tmp_path / "heavy.jsonl", map(str, range(10)))), weight=2.3)
    light = SourceSettings(path=str(write_jsonl(tmp_path / "light.jsonl", "abcdefghij")), weight=0.4)
    wanted = DataSettings(train=[heavy, light])
    reading = read(wanted.train, wanted, seed=1)
    counts = Counter(row.fields["text"] for row in reading.rows)
    assert sorted(counts[str(digit)] for digit in range(10)) == [2] * 7 + [3] * 3
    assert sum(counts[letter] for letter in "abcdefghij") == 4
    assert reading.notes[0].endswith("heavy.jsonl: weight 2.3 makes 23 rows of 10.")
    assert read(wanted.train, wanted, seed=1).rows == reading.rows
    assert read(wanted.train, wanted, seed=2).rows != reading.rows


def test_a_stream_of_one_source_gives_what_read_gives(tmp_path):
    path = str(write_jsonl(tmp_path / "rows.jsonl", "abc"))
    assert list(stream(path, DataSettings(train=path))) == read(path, DataSettings(train=path)).rows


def test_a_stream_draws_sources_by_weight_until_each_was_read_through(tmp_path):
    often = SourceSettings(path=str(write_jsonl(tmp_path / "often.jsonl", ["a"] * 50)), weight=3.0)
    seldom = SourceSettings(path=str(write_jsonl(tmp_path / "seldom.jsonl", ["b"] * 500)), weight=1.0)
    wanted = DataSettings(train=[often, seldom])
    drawn = [row.fields["text"] for row in stream(wanted.train, wanted, seed=0)]
    assert drawn.count("b") == 500
    # The mean of 2,000 draws with probability 3/4 is within 4 standard deviations, 4 * sqrt(0.1875 / 2000).
    assert drawn.count("a") / len(drawn) == pytest.approx(0.75, abs=0.039)
    assert [row.fields["text"] for row in stream(wanted.train, wanted, seed=0)] == drawn


def test_rows_of_the_hub_come_through_datasets(monkeypatch):
    import datasets

    asked = {}

    def load_dataset(name, config, split, streaming):
        asked.update(name=name, config=config, split=split, streaming=streaming)
        return [{"text": "007"}, {"text": "NA"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = SourceSettings(path="hf://org/name", config="small", split="validation")
    rows = list(stream(source, DataSettings(train=source)))
    assert asked == {"name": "org/name", "config": "small", "split": "validation", "streaming": True}
    assert [(row.fields["text"], row.source, row.line) for row in rows] == [
        ("007", "hf://org/name", 1),
        ("NA", "hf://org/name", 2),
    ]


def test_a_dataset_folder_is_loaded_through_datasets(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "org").mkdir()
    write_parquet(tmp_path / "org" / "train.parquet", ["007", "NA"])
    source = f"hf://{tmp_path / 'org'}"
    assert [row.fields["text"] for row in stream(source, DataSettings(train=source))] == ["007", "NA"]


def test_a_dataset_that_is_not_there_is_said_with_what_was_looked_for():
    source = SourceSettings(path="hf://org/name", config="small", split="dev")
    with pytest.raises(
        DataError, match=r"'org/name', configuration 'small', split 'dev', was not found.*HF_HUB_OFFLINE"
    ):
        read(source, DataSettings(train=source))


def test_shipped_rows_are_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    write_jsonl(tmp_path / "recipes" / "quickstart.jsonl", ["x"])
    monkeypatch.setattr("lorakit.data.paths.resources.files", lambda package: tmp_path)
    assert len(read("recipe:quickstart.jsonl", DataSettings(train="recipe:quickstart.jsonl")).rows) == 1
    with pytest.raises(DataError, match=r"Did you mean 'quickstart\.jsonl'\?"):
        read("recipe:quickstar.jsonl", DataSettings(train="-"))
    with pytest.raises(DataError, match="no rows of this name ship"):
        read("recipe:../recipes/quickstart.jsonl", DataSettings(train="-"))


@pytest.mark.parametrize("evaluation", ["rows/a.jsonl", "rows", "./rows/../rows/a.jsonl"])
def test_evaluating_on_training_rows_is_refused(tmp_path, evaluation):
    (tmp_path / "rows").mkdir()
    write_jsonl(tmp_path / "rows" / "a.jsonl", ["x"])
    with pytest.raises(DataError, match="says nothing about new"):
        read("rows", DataSettings(train="rows", eval=evaluation), base_dir=tmp_path)
