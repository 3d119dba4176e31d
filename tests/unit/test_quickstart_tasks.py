"""The rows of the quickstarts of BERT and T5: reproducible, balanced, and nothing of the evaluation is learned."""

import json
from collections import Counter
from pathlib import Path

import pytest
from quickstart import intents, translations

RECIPES = Path(__file__).parents[2] / "src" / "lorakit" / "recipes"
GENERATORS = {"classify": intents, "translate": translations}


def committed(name, part):
    with (RECIPES / f"quickstart-{name}-{part}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("part", ["train", "eval"])
@pytest.mark.parametrize("name", GENERATORS)
def test_writing_again_gives_the_committed_bytes(name, part):
    assert (RECIPES / f"quickstart-{name}-{part}.jsonl").read_bytes() == GENERATORS[name].text(part).encode()


@pytest.mark.parametrize("name", GENERATORS)
def test_no_row_stands_twice(name):
    rows = [tuple(row.values()) for part in ("train", "eval") for row in committed(name, part)]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("part", ["train", "eval"])
def test_every_label_has_as_many_rows_in_each_language(part):
    counts = Counter((row["label"], row["text"].isascii()) for row in committed("classify", part))
    assert len(counts) == 2 * len(intents.WISHES)
    assert len(set(counts.values())) == 1


def test_things_of_evaluation_rows_and_the_last_wish_of_each_kind_stand_in_no_training_row():
    learned = " ".join(row["text"] for row in committed("classify", "train"))
    for language, things in intents.THINGS.items():
        for wishes in intents.WISHES.values():
            new_things = [wish.format(thing=thing) for wish in wishes[language] for thing in things[-4:]]
            new_wishes = [wishes[language][-1].format(thing=thing) for thing in things]
            assert not [wish for wish in new_things + new_wishes if wish in learned]


def test_one_korean_sentence_has_one_translation():
    rows = [row for part in ("train", "eval") for row in committed("translate", part)]
    assert len({row["source"] for row in rows}) == len(rows)


def test_the_actor_the_action_and_the_thing_of_an_evaluation_row_never_meet_in_training():
    assert not set(map(repr, translations.triples("train"))) & set(map(repr, translations.triples("eval")))


def test_a_translation_says_what_the_korean_says():
    eat = translations.ACTIONS[0]
    assert translations._korean_verb(eat, "past", False) == "먹었습니다"
    assert translations._korean_verb(eat, "future", False) == "먹겠습니다"
    assert translations._korean_verb(eat, "past", True) == "먹지 않았습니다"
    assert translations._english_verb(eat, "past", False) == "ate"
    assert translations._english_verb(eat, "future", True) == "will not eat"
