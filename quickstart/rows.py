"""Write the rows of the quickstart: facts of a made-up place, and sentences that tell them.

A name of an evaluation row occurs in no training row and in no text the built-in checkpoint has read, so that what is
measured is telling facts, not remembering places.

    python -m quickstart.rows            # writes src/lorakit/recipes/quickstart-{train,eval}.jsonl
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal

from quickstart import vocabulary
from quickstart.sentences import OFFERS, Facts, tell_in_english, tell_in_korean

Language = Literal["en", "ko"]
Part = Literal["train", "eval"]

FOLDER = Path(__file__).resolve().parent.parent / "src" / "lorakit" / "recipes"
COUNTS: dict[Part, dict[Language, int]] = {"train": {"en": 1200, "ko": 800}, "eval": {"en": 120, "ko": 80}}
HELD_OUT_NAMES = 120
"""Names of each language that only evaluation rows use."""

ROLES = ("name", "kind", "area", *OFFERS, "price", "rating", "seats", "opens", "closed")
"""Order of the facts in a prompt and of their telling."""

KOREAN_KEYS = {
    "name": "이름",
    "kind": "종류",
    "area": "지역",
    "food": "음식",
    "goods": "상품",
    "theme": "주제",
    "price": "가격",
    "rating": "평점",
    "seats": "좌석",
    "opens": "여는 시간",
    "closed": "쉬는 날",
}


@cache
def names(language: Language, part: Part) -> tuple[str, ...]:
    """Return the names that rows of `part` may use; the two parts share none."""
    halves = vocabulary.ENGLISH_NAMES if language == "en" else vocabulary.KOREAN_NAMES
    pairs = [f"{first} {second}" for first, second in itertools.product(*halves)]
    Random(f"names {language}").shuffle(pairs)
    return tuple(pairs[:HELD_OUT_NAMES] if part == "eval" else pairs[HELD_OUT_NAMES:])


def invent(language: Language, part: Part, generator: Random) -> Facts:
    """Make up a place of four to six facts; name and kind are always told."""
    english = language == "en"
    offer = generator.choice(OFFERS)
    kinds, offers = (
        (vocabulary.ENGLISH_KINDS, vocabulary.ENGLISH_OFFERS)
        if english
        else (vocabulary.KOREAN_KINDS, vocabulary.KOREAN_OFFERS)
    )
    stars = generator.choice(vocabulary.RATINGS)
    seats = generator.choice(vocabulary.SEATS)
    choices = {
        "name": generator.choice(names(language, part)),
        "kind": generator.choice(kinds[offer]),
        "area": generator.choice(tuple(vocabulary.ENGLISH_AREAS) if english else vocabulary.KOREAN_AREAS),
        offer: generator.choice(offers[offer]),
        "price": generator.choice(vocabulary.ENGLISH_PRICES if english else vocabulary.KOREAN_PRICES),
        "rating": f"{stars} out of 5" if english else f"{stars}점",
        "seats": seats if english else f"{seats}석",
        "opens": generator.choice(vocabulary.ENGLISH_HOURS if english else vocabulary.KOREAN_HOURS),
        "closed": generator.choice(vocabulary.ENGLISH_DAYS if english else vocabulary.KOREAN_DAYS),
    }
    if offer == "goods":
        del choices["seats"]
    told = generator.sample([role for role in choices if role not in ("name", "kind")], generator.randint(2, 4))
    return {role: choices[role] for role in ROLES if role in ("name", "kind", *told)}


def prompt(facts: Facts, language: Language) -> str:
    """Return the facts as ``name: Blue Fox | kind: bakery | …``."""
    return " | ".join(f"{KOREAN_KEYS[role] if language == 'ko' else role}: {value}" for role, value in facts.items())


def combination(facts: Facts) -> frozenset[str]:
    """Return what tells one set of facts from another, whatever their order."""
    return frozenset(f"{role}={value}" for role, value in facts.items())


@cache
def places(part: Part) -> tuple[tuple[Language, Facts], ...]:
    """Return the places of `part`, no two alike, in mixed order."""
    generator = Random(f"places {part}")
    found: dict[frozenset[str], tuple[Language, Facts]] = {}
    for language, count in COUNTS[part].items():
        goal = len(found) + count
        while len(found) < goal:
            facts = invent(language, part, generator)
            found.setdefault(combination(facts), (language, facts))
    mixed = list(found.values())
    generator.shuffle(mixed)
    return tuple(mixed)


def rows(part: Part) -> list[dict[str, str]]:
    """Return the rows of `part`, each a prompt and its completion."""
    generator = Random(f"sentences {part}")
    tell = {"en": tell_in_english, "ko": tell_in_korean}
    return [
        {"prompt": prompt(facts, language), "completion": tell[language](facts, generator)}
        for language, facts in places(part)
    ]


def evaluation_combinations() -> frozenset[frozenset[str]]:
    """Return the fact combinations of the evaluation rows, which no other text may tell."""
    return frozenset(combination(facts) for _, facts in places("eval"))


def text(part: Part) -> str:
    """Return the file of `part`: a JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(part))


def main() -> None:
    """Write both files into the package."""
    for part in COUNTS:
        file = FOLDER / f"quickstart-{part}.jsonl"
        file.write_text(text(part), encoding="utf-8")
        print(f"{file}: {len(rows(part))} rows, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
