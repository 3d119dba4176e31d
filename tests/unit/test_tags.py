"""Entities from tags, broken tags, and running text cut into words."""

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from lorakit.objectives.tags import entities, in_order, repaired, word_borders


@pytest.mark.parametrize(
    ("given", "expected", "broken"),
    [
        (["O", "I-PER", "I-PER"], ["O", "B-PER", "I-PER"], [1]),
        (["I-PER", "I-LOC"], ["B-PER", "B-LOC"], [0, 1]),
        (["B-PER", "O", "I-PER"], ["B-PER", "O", "B-PER"], [2]),
        (["B-PER", "I-PER", "B-PER"], ["B-PER", "I-PER", "B-PER"], []),
        (["NOUN", "VERB", "I", "B"], ["NOUN", "VERB", "I", "B"], []),
        (["B-PER", "NOUN", "I-PER"], ["B-PER", "NOUN", "B-PER"], [2]),
        ([], [], []),
    ],
)
def test_an_inside_tag_that_nothing_begins_begins_an_entity(given, expected, broken):
    assert repaired(given) == (expected, broken)


def test_entities_are_those_that_seqeval_finds():
    draw = random.Random(0)
    for _ in range(200):
        tags = draw.choices(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], k=draw.randint(1, 12))
        found = [(label, first, end - 1) for label, first, end in entities(tags)]
        assert found == get_entities(tags), tags


def test_tags_are_sorted_with_outside_before_all_others():
    assert in_order({"I-LOC", "B-PER", "O", "B-LOC"}) == ["O", "B-LOC", "B-PER", "I-LOC"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada met Bob, twice.", ["Ada", "met", "Bob", ",", "twice", "."]),
        ("서울은  대한민국의\n수도!", ["서울은", "대한민국의", "수도", "!"]),
        ("हिन्दी 2024년", ["हिन्दी", "2024년"]),
        ("cafe\u0301 x_1", ["cafe\u0301", "x_1"]),
        ("a👨‍👩‍👧b 👍🏽", ["a", "👨‍👩‍👧", "b", "👍🏽"]),
        (" \t\u3000", []),
        ("", []),
    ],
)
def test_running_text_is_cut_at_white_space_and_punctuation_of_any_script(text, words):
    assert [text[begin:end] for begin, end in word_borders(text)] == words
