"""Entities and answers: against seqeval, counts by hand and the examples of the SQuAD papers."""

from __future__ import annotations

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from lorakit.metrics import spans
from lorakit.metrics.intervals import sampled

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def values(measures, rows):
    return {name: sample.score.value for name, sample in sampled(measures, rows).items()}


def test_an_inside_tag_that_nothing_begins_is_no_entity():
    assert spans.spans_of(["I-PER", "O", "B-PER", "I-LOC", "I-PER"]) == {(2, 3, "PER")}


def test_entity_scores_are_those_of_seqeval_in_its_strict_mode():
    draw = np.random.default_rng(0)
    true, said = ([list(draw.choice(TAGS, 12)) for _ in range(20)] for _ in range(2))
    strict = {"mode": "strict", "scheme": IOB2}
    assert values(spans.entities(true, said), 20) == pytest.approx(
        {
            "entity_f1": f1_score(true, said, **strict),
            "entity_precision": precision_score(true, said, **strict),
            "entity_recall": recall_score(true, said, **strict),
        }
    )


def test_the_table_of_kinds_is_counted_by_hand():
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O", "O", "O"]]
    said = [["B-PER", "O", "O", "B-LOC"], ["B-LOC", "O", "B-ORG", "O"]]
    shown = [(one.label, one.precision, one.recall, one.f1, one.support) for one in spans.entity_table(true, said)]
    assert shown == [("LOC", 1, 1, 1, 2), ("ORG", 0, None, 0, 0), ("PER", 0, 0, 0, 1)]


def test_no_entity_anywhere_is_undefined_and_not_perfect():
    assert set(values(spans.entities([["O"], ["O"]], [["O"], ["O"]]), 2).values()) == {None}


def test_tags_without_beginnings_are_not_taken_for_entities():
    assert spans.has_entities(TAGS)
    assert not spans.has_entities(("NOUN", "VERB"))
    assert not spans.has_entities(("O",))


def test_tags_are_counted_by_words_and_not_by_rows():
    measure = {"tags": spans.tag_accuracy([["a", "b", "c"], ["a"]], [["a", "b", "x"], ["x"]])}
    assert values(measure, 2)["tags"] == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("said", "right", "exact", "f1"),
    [
        # Articles, case and punctuation do not count, as the paper of SQuAD says.
        ("The Denver Broncos!", ["Denver Broncos", "Carolina"], 1, 1),
        ("Santa Clara, California", ["Levi's Stadium in Santa Clara", "Santa Clara"], 0, 2 * 2 / (3 + 2)),
        ("gravity", ["graupel"], 0, 0),
        ("", [], 1, 1),
        ("", ["1066"], 0, 0),
        ("1066", [], 0, 0),
        ("서울", ["서울", "서울시"], 1, 1),
    ],
)
def test_an_answer_is_measured_by_the_best_accepted_one(said, right, exact, f1):
    assert values(spans.answers([said], [right]), 1) == pytest.approx({"exact_match": exact, "f1": f1})


def test_questions_with_and_without_an_answer_are_told_apart():
    found = values(spans.answers(["a river", "river", "", "river"], [["river"], ["a red river"], [], []]), 4)
    assert found == pytest.approx(
        {
            "exact_match": 0.5,
            "f1": (1 + 2 / 3 + 1 + 0) / 4,
            "has_answer_exact_match": 0.5,
            "has_answer_f1": (1 + 2 / 3) / 2,
            "no_answer_accuracy": 0.5,
        }
    )
