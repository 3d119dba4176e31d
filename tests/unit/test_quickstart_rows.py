"""The rows of the quickstart: reproducible, disjoint, every fact told, particles right."""

import json
import unicodedata
from pathlib import Path

import pytest
from quickstart import rows, vocabulary
from quickstart.korean import PARTICLES, Noun, with_particle
from scripts import fact_text

RECIPES = Path(__file__).parents[2] / "src" / "lorakit" / "recipes"


def committed(part):
    with (RECIPES / f"quickstart-{part}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def values(prompt):
    return [fact.split(": ", 1)[1] for fact in prompt.split(" | ")]


def is_korean(row):
    return row["prompt"].startswith("이름: ")


@pytest.mark.parametrize("part", ["train", "eval"])
def test_writing_again_gives_the_committed_bytes(part):
    assert (RECIPES / f"quickstart-{part}.jsonl").read_bytes() == rows.text(part).encode()


@pytest.mark.parametrize(("part", "english", "korean"), [("train", 1200, 800), ("eval", 120, 80)])
def test_counts_of_each_language(part, english, korean):
    found = committed(part)
    assert (len(found) - sum(map(is_korean, found)), sum(map(is_korean, found))) == (english, korean)


def test_both_files_stay_under_one_megabyte():
    assert sum((RECIPES / f"quickstart-{part}.jsonl").stat().st_size for part in ("train", "eval")) < 1_000_000


@pytest.mark.parametrize("part", ["train", "eval"])
def test_every_value_of_a_prompt_is_told_in_its_completion(part):
    untold = [row for row in committed(part) if not all(value in row["completion"] for value in values(row["prompt"]))]
    assert untold == []


@pytest.mark.parametrize("part", ["train", "eval"])
def test_a_row_has_four_to_six_facts(part):
    assert {len(values(row["prompt"])) for row in committed(part)} == {4, 5, 6}


def test_no_set_of_facts_stands_twice():
    prompts = [row["prompt"] for part in ("train", "eval") for row in committed(part)]
    assert len(set(prompts)) == len(prompts)


def test_no_evaluation_name_occurs_in_the_training_file():
    training = (RECIPES / "quickstart-train.jsonl").read_text(encoding="utf-8")
    names = {values(row["prompt"])[0] for row in committed("eval")}
    assert len(names) > 50
    assert [name for name in names if name in training] == []


def test_no_evaluation_combination_is_told_in_the_pretraining_text():
    combinations = [set(values(row["prompt"])) for row in committed("eval")]
    passages = fact_text.documents(seed=0, size=300_000)
    told = [facts for facts in combinations for passage in passages if all(value in passage for value in facts)]
    assert told == []


def test_pretraining_invents_a_place_again_when_it_is_an_evaluation_place(monkeypatch):
    taken = {"name": "Blue Fox", "kind": "cafe"}
    free = {"name": "Red Owl", "kind": "cafe"}
    invented = iter([taken, taken, free])
    monkeypatch.setattr(fact_text, "invent", lambda *_: next(invented))
    monkeypatch.setattr(fact_text, "evaluation_combinations", lambda: {rows.combination(taken)})
    assert list(fact_text._place(None).values()) == ["Red Owl", "cafe"]


def ends_in_consonant(word):
    """Another route than the code's arithmetic: the canonical decomposition ends in a final consonant or not."""
    return "\u11a8" <= unicodedata.normalize("NFD", word)[-1] <= "\u11c2"


TABLES = [*vocabulary.KOREAN_KINDS.values(), *vocabulary.KOREAN_OFFERS.values(), vocabulary.KOREAN_PRICES]
WORDS = [*vocabulary.KOREAN_NAMES[1], *(word for table in TABLES for word in table)]


@pytest.mark.parametrize("particle", [name for name in PARTICLES if name != "으로"])
def test_a_particle_follows_the_last_sound(particle):
    after_consonant, after_vowel = PARTICLES[particle]
    for word in WORDS:
        assert with_particle(word, particle) == word + (after_consonant if ends_in_consonant(word) else after_vowel)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("지하철", "지하철로"), ("서울", "서울로"), ("부산", "부산으로"), ("학교", "학교로"), ("강변", "강변으로")],
)
def test_direction_drops_its_vowel_after_a_vowel_and_after_rieul(word, expected):
    assert with_particle(word, "으로") == expected


def test_a_template_puts_the_particle_behind_the_word():
    assert "{a:은} {b:을} 팝니다".format(a=Noun("한빛 마당"), b=Noun("커피")) == "한빛 마당은 커피를 팝니다"


def test_a_word_whose_sound_is_not_known_is_refused():
    with pytest.raises(ValueError, match="'Seoul' does not end in a Hangul syllable"):
        with_particle("Seoul", "은")


@pytest.mark.parametrize("part", ["train", "eval"])
def test_no_committed_sentence_has_a_value_with_the_wrong_particle(part):
    for row in filter(is_korean, committed(part)):
        for value in values(row["prompt"]):
            wrong = ("는 ", "를 ", "라는 ", "며 ") if ends_in_consonant(value) else ("은 ", "을 ", "이라는 ", "이며 ")
            found = [value + particle for particle in wrong if value + particle in row["completion"]]
            assert found == [], row["completion"]
