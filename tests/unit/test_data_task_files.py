"""CoNLL files, nested SQuAD files and tables without a header."""

from __future__ import annotations

import gzip
import json

import pytest

from lorakit.data.settings import DataSettings
from lorakit.data.sources import read
from lorakit.errors import DataError


def reading_of(path, **options):
    return read(str(path), DataSettings(train=str(path), **options))


def written(folder, name: str, text: str):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("suffix", ["conll", "bio", "iob", "conll.gz"])
def test_sentences_carry_the_line_of_their_first_word(tmp_path, suffix):
    text = "-DOCSTART- -X- O O\n\nSeoul NNP B-LOC\n. . O\n\n\n나 NP O\n"
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    assert [(dict(row.fields), row.line) for row in reading_of(path).rows] == [
        ({"tokens": ["Seoul", "."], "tags": ["B-LOC", "O"]}, 3),
        ({"tokens": ["나"], "tags": ["O"]}, 7),
    ]


def test_tabs_part_columns_so_that_a_word_may_hold_a_space(tmp_path):
    path = written(tmp_path, "rows.conll", "New York\tB-LOC\n \t\nis\tO")
    assert [row.fields["tokens"] for row in reading_of(path).rows] == [["New York"], ["is"]]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("alone", r"a word and its tag are due, found one column \('alone'\)"),
        ("one two three", "3 columns, but the first line has 2"),
        ("word\t", "the tag is empty"),
    ],
)
def test_a_broken_line_stops_or_takes_its_sentence_along(tmp_path, line, problem):
    path = written(tmp_path, "rows.conll", f"a O\n\nb O\n{line}\nc O\n\nd O\n")
    with pytest.raises(DataError, match=rf"rows\.conll line 4: {problem}\."):
        reading_of(path)
    reading = reading_of(path, broken="skip")
    assert [row.fields["tokens"] for row in reading.rows] == [["a"], ["d"]]
    assert reading.notes == ["rows.conll: 1 broken line skipped (line 4)."]


def test_a_file_without_a_sentence_is_empty(tmp_path):
    with pytest.raises(DataError, match="it holds no sentence"):
        reading_of(written(tmp_path, "rows.conll", "-DOCSTART- O\n\n"))


def test_questions_of_nested_articles_become_rows(tmp_path):
    questions = [{"id": "a", "question": "q", "answers": []}, {"id": "b", "question": "r", "answers": []}]
    article = {"title": "T", "paragraphs": [{"context": "C", "qas": questions}]}
    path = written(tmp_path, "train.json", json.dumps({"version": "2", "data": [article]}))
    assert [dict(row.fields) for row in reading_of(path).rows] == [
        {"title": "T", "context": "C", **question} for question in questions
    ]


def test_an_article_without_questions_is_named(tmp_path):
    path = written(tmp_path, "train.json", json.dumps({"data": [{"paragraphs": [{"context": "C", "qas": 3}]}]}))
    with pytest.raises(DataError, match=r"train\.json line 1: paragraph 1: 'qas' is no list of questions"):
        reading_of(path)


@pytest.mark.parametrize(
    ("name", "text"), [("a.tsv", "x\t1\ny\t2\n"), ("a.csv", "x,1\ny,2\n"), ("a.txt", "x\t1\ny\t2\n")]
)
def test_columns_of_a_table_without_a_header_are_numbered(tmp_path, name, text):
    rows = reading_of(written(tmp_path, name, text), header=False).rows
    assert [(dict(row.fields), row.line) for row in rows] == [({"1": "x", "2": "1"}, 1), ({"1": "y", "2": "2"}, 2)]


def test_a_ragged_row_is_measured_against_the_first_line_where_there_is_no_header(tmp_path):
    path = written(tmp_path, "a.tsv", "x\t1\ny\n")
    with pytest.raises(DataError, match=r"a\.tsv line 2: 1 field, but the first line has 2"):
        reading_of(path, header=False)


def test_an_empty_table_without_a_header_holds_no_rows(tmp_path):
    with pytest.raises(DataError, match=r"a\.tsv is empty"):
        reading_of(written(tmp_path, "a.tsv", ""), header=False)
