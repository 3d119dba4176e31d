"""What is counted about the rows before training."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from lorakit.data.report import examine
from lorakit.errors import DataError
from lorakit.types import Example, Format, Row

PAIRS = Format("prompt_completion", {"prompt": ("prompt",), "completion": ("completion",)})
CHAT = Format("chat", {"messages": ("messages",)})


def pairs(*words: tuple[str, str], source: str = "rows.csv") -> list[Row]:
    fields = [{"prompt": prompt, "completion": completion} for prompt, completion in words]
    return [Row(each, source, line) for line, each in enumerate(fields, start=2)]


def test_tokens_learned_tokens_and_the_longest_row_are_counted():
    examples = [
        Example(np.arange(3, dtype=np.int32), np.array([-100, 1, 2], np.int32), 0, "rows.csv line 2"),
        Example(np.arange(5, dtype=np.int32), np.array([-100, -100, -100, 3, 4], np.int32), 1, "rows.csv line 3"),
    ]
    report = examine(examples, pairs(("a", "b"), ("c", "d")), [], PAIRS)
    assert (report.rows, report.tokens, report.learned) == (2, 8, 4)
    assert (report.longest, report.longest_where) == (5, "rows.csv line 3")


def test_a_plain_table_has_no_notes():
    assert examine([], pairs(("a", "b"), ("c", "d")), pairs(("e", "f"), source="eval.csv"), PAIRS).notes == []


def test_duplicates_are_counted_beyond_the_first():
    assert examine([], pairs(("a", "b"), ("a", "b"), ("a", " b "), ("a", "c")), [], PAIRS).duplicates == 2


def test_a_row_that_a_weight_repeats_is_no_duplicate():
    assert examine([], pairs(("a", "b")) * 3, [], PAIRS).duplicates == 0


def test_prompts_with_several_answers_are_noted():
    report = examine([], pairs(("a", "b"), ("x", "y"), ("a", "c")), [], PAIRS)
    assert report.notes == ["1 prompt of 2 with several different answers (first: rows.csv line 2)."]


def test_chats_are_compared_by_all_their_turns():
    def chat(answer: str, line: int) -> Row:
        said = [{"role": "user", "content": "u"}, {"role": "assistant", "content": answer}]
        return Row({"messages": said}, "rows.jsonl", line)

    report = examine([], [chat("a", 1), chat("b", 2), chat("a", 3)], [], CHAT)
    assert report.duplicates == 1
    assert report.notes == ["1 prompt of 1 with several different answers (first: rows.jsonl line 1)."]


@pytest.mark.parametrize(("others", "strongly"), [(39, False), (9, True)])
def test_leaked_evaluation_rows_are_noted_with_their_share(others, strongly):
    train = pairs(("a", "b"), ("c", "d"))
    evaluation = pairs(("a", "b"), *((f"new {number}", "x") for number in range(others)), source="eval.csv")
    report = examine([], train, evaluation, PAIRS)
    assert report.leaked == 1
    (note,) = report.notes
    assert f"1 of {others + 1} evaluation rows ({100 / (others + 1):.2g} %)" in note
    assert "first: eval.csv line 2" in note
    assert ("WILL LOOK BETTER" in note) is strongly


def test_a_leak_is_seen_through_unicode_forms():
    train = pairs((unicodedata.normalize("NFC", "서울"), "b"))
    evaluation = pairs((unicodedata.normalize("NFD", "서울"), "b"), ("x", "y"), source="eval.csv")
    assert examine([], train, evaluation, PAIRS).leaked == 1


def test_evaluating_on_the_training_rows_is_an_error():
    rows = pairs(("a", "b"), ("c", "d"))
    with pytest.raises(DataError, match="the evaluation rows are the training rows"):
        examine([], rows, rows, PAIRS)


def test_decomposed_korean_is_noted():
    report = examine([], pairs((unicodedata.normalize("NFD", "한국어"), "b"), ("한국어", "c")), [], PAIRS)
    assert report.notes[-1].startswith("1 row (50 %) with letters taken apart into pieces (Unicode NFD")
    assert "Korean in this form takes two to three times the tokens" in report.notes[-1]


def test_the_note_about_decomposed_text_says_how_to_compose_it():
    report = examine([], pairs((unicodedata.normalize("NFD", "한국어"), "b")), [], PAIRS)
    assert "1 row (100 %) with letters" in report.notes[-1]
    assert report.notes[-1].endswith("--set data.normalise=nfc.")


def test_unused_columns_are_noted():
    named = Format("prompt_completion", PAIRS.columns, ("id", "label"))
    assert examine([], pairs(("a", "b")), [], named).notes == ["columns that nothing reads: 'id', 'label'."]


LABELLED = Format("labelled", {"text": ("text",), "label": ("label",)})


def rows_of(*fields: dict[str, object]) -> list[Row]:
    return [Row(each, "rows.jsonl", line) for line, each in enumerate(fields, start=1)]


def test_labels_are_counted_in_one_line():
    rows = rows_of(*({"text": str(number), "label": "ab"[number % 3 == 0]} for number in range(9)))
    assert examine([], rows, [], LABELLED).notes == ["2 labels: most frequent 'a' (6 rows), rarest 'b' (3 rows)."]


def test_several_labels_a_row_are_counted_with_their_mean():
    rows = rows_of({"text": "t", "labels": ["a", "b"]}, {"text": "u", "labels": ["a"]})
    assert examine([], rows, [], LABELLED).notes == [
        "2 labels, 1.50 a row: most frequent 'a' (2 rows), rarest 'b' (1 row)."
    ]


@pytest.mark.parametrize(
    ("name", "fields", "note"),
    [
        (
            "labelled",
            [{"text": "t", "label": "a"}, {"text": "t ", "label": "b"}],
            "1 text of 1 with several different labels",
        ),
        (
            "labelled",
            [{"text": "t", "text_pair": "u", "label": "a"}, {"text": "t", "text_pair": "v", "label": "b"}],
            None,
        ),
        (
            "tagged",
            [{"tokens": ["x"], "tags": ["O"]}, {"tokens": ["x"], "tags": ["B-a"]}],
            "1 sentence of 1 with several different tags",
        ),
        (
            "source_target",
            [{"source": "s", "target": "t"}, {"source": "s", "target": "u"}],
            "1 source of 1 with several different targets",
        ),
        (
            "extractive",
            [
                {"question": "q", "context": "c", "answers": []},
                {"question": "q", "context": "c", "answers": [{"text": "c", "start": 0}]},
            ],
            "1 question of 1 with several different answers",
        ),
    ],
)
def test_the_same_prompt_answered_differently_is_a_note_in_every_format(name, fields, note):
    found = [line for line in examine([], rows_of(*fields), [], Format(name, {})).notes if "several different" in line]
    assert found == ([f"{note} (first: rows.jsonl line 1)."] if note else [])


def test_several_rows_of_one_line_are_rows_of_their_own():
    rows = [Row({"source": "s", "target": target}, "rows.jsonl", 1) for target in ("t", "u")]
    report = examine([], rows, [], Format("source_target", {}))
    assert (report.duplicates, len(report.notes)) == (0, 1)


def test_scores_are_told_by_their_range():
    rows = rows_of({"text": "a", "score": 1.0}, {"text": "b", "score": 4.0})
    assert examine([], rows, [], LABELLED).notes == ["scores from 1 to 4, mean 2.5."]


def test_what_is_learned_is_counted_as_the_objective_says():
    one = Example(np.zeros(4, np.int32), np.zeros(0, np.int32), 0)
    assert examine([one, one], pairs(("a", "b")), [], PAIRS, learned=lambda example: 3).learned == 6
