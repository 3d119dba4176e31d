"""Labels, tags, scores and answers that cannot be learned are named with row and field, or counted when asked."""

from __future__ import annotations

import pytest

from lorakit.data.formats import canonical, recognise
from lorakit.errors import DataError
from lorakit.types import Row

PAIR = {"text": "t", "text_pair": "u", "label": "a"}
LABELS = {"text": "t", "labels": ["a"]}
SCORE = {"text": "t", "score": 1.0}
TAGS = {"tokens": ["a", "b"], "tags": ["O", "O"]}
ANSWER = {"question": "q", "context": "in Paris", "answers": [{"text": "Paris", "answer_start": 3}]}
TARGET = {"source": "s", "target": "t"}

FAULTS = [
    (PAIR, {"text": " ", "text_pair": "u", "label": "a"}, "'text' is only white space"),
    (PAIR, {"text": "t", "label": "a"}, r"has no 'text_pair' \(it has 'text', 'label'\)"),
    (PAIR, {**PAIR, "text_pair": None}, "'text_pair' is null"),
    (PAIR, {**PAIR, "label": None}, "'label' is null"),
    (PAIR, {**PAIR, "label": ""}, "'label' is empty"),
    (PAIR, {**PAIR, "label": ["a"]}, r"'label' is a list; for several labels a row: --set data\.columns\.labels=label"),
    (LABELS, {**LABELS, "labels": None}, "'labels' is null"),
    (LABELS, {**LABELS, "labels": None}, "'labels' is null"),
    (LABELS, {**LABELS, "labels": "a,,b"}, "a label of 'labels' is empty"),
    (LABELS, {**LABELS, "labels": ["a", None]}, "a label of 'labels' is null"),
    (LABELS, {**LABELS, "labels": "a|a"}, "'labels' names 'a' twice"),
    (SCORE, {**SCORE, "score": "good"}, r"'score' is 'good', and a score is a number such as 3\.5"),
    (SCORE, {**SCORE, "score": "nan"}, "'score' is 'nan', and a score is a number"),
    (SCORE, {**SCORE, "score": "1e999"}, "'score' is 1e999, and a score is a finite number"),
    (SCORE, {**SCORE, "score": True}, "'score' is true, and a score is a number"),
    (SCORE, {**SCORE, "score": None}, "'score' is null"),
    (TAGS, {"tokens": ["a", "b"], "tags": ["O"]}, r"'tokens' holds 2 and 'tags' 1 \(first token 'a'\)"),
    (TAGS, {"tokens": [], "tags": []}, "'tokens' is an empty list"),
    (TAGS, {"tokens": ["a", ""], "tags": ["O", "O"]}, "'tokens' number 2 is empty"),
    (TAGS, {"tokens": ["a", "b"], "tags": ["O", " "]}, "'tags' number 2 is only white space"),
    (TAGS, {"tokens": ["a", "b"], "tags": ["O", 3]}, "'tags' number 2 is 3, a number without a name"),
    (TAGS, {"tokens": {"a": 1}, "tags": ["O"]}, "'tokens' is an object, and is a list"),
    (TARGET, {"source": "s", "target": []}, "'target' is an empty list"),
    (TARGET, {"source": "s", "target": ["t", ""]}, "'target' is empty"),
    (
        ANSWER,
        {**ANSWER, "id": "5a", "answers": [{"text": "Paris", "answer_start": 2}]},
        r"question '5a': .* the answer 'Paris' does not stand at 2 in its context \(' Pari' does\); it stands at 3",
    ),
    (
        ANSWER,
        {**ANSWER, "answers": [{"text": "Rome", "answer_start": 3}]},
        r"'answers': the answer 'Rome' does not stand at 3 .* it stands nowhere in the context",
    ),
    (
        ANSWER,
        {**ANSWER, "answers": [{"text": "Paris", "answer_start": -5}]},
        ".* does not stand at -5 .* it stands at 3",
    ),
    (ANSWER, {**ANSWER, "answers": [{"text": "Paris"}]}, ".* has no whole number as 'answer_start'; it stands at 3"),
    (ANSWER, {**ANSWER, "answers": [{"text": "", "answer_start": 0}]}, "'text' in 'answers' is empty"),
    (ANSWER, {**ANSWER, "answers": None}, "'answers' is null, and is a list of objects"),
    (
        ANSWER,
        {**ANSWER, "answers": {"text": ["Paris"], "answer_start": []}},
        "'answers' holds 1 of 'text' and 0 of 'answer_start'",
    ),
]


@pytest.mark.parametrize(("sound", "broken", "fault"), FAULTS)
def test_a_row_that_cannot_be_learned_is_named_with_line_and_field(sound, broken, fault):
    rows = [Row(sound, "rows.jsonl", 1), Row(broken, "rows.jsonl", 2)]
    with pytest.raises(DataError, match=rf"1 of 2 rows cannot be used:\n  rows\.jsonl line 2: {fault}"):
        canonical(rows, recognise(rows, {}))


@pytest.mark.parametrize(("sound", "broken", "fault"), FAULTS)
def test_such_a_row_is_skipped_and_counted_where_that_is_asked(sound, broken, fault):
    rows = [Row(sound, "rows.jsonl", 1), Row(broken, "rows.jsonl", 2)]
    kept, notes = canonical(rows, recognise(rows, {}), "skip")
    assert [row.line for row in kept] == [1]
    assert len(notes) == 1
    assert notes[0].startswith("1 of 2 rows skipped: rows.jsonl line 2: ")
