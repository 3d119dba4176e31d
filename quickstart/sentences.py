"""Sentences that tell the facts of a place, every value letter for letter, in the order of the facts."""

from __future__ import annotations

from random import Random

from quickstart.korean import Noun
from quickstart.vocabulary import ENGLISH_AREAS

Facts = dict[str, str]
"""Role (``name``, ``kind``, ``area``, ...) -> value."""

OFFERS = ("food", "goods", "theme")
"""Roles of what a place offers; a place has at most one of them."""

_ENGLISH_OPENINGS = {
    True: (
        "{name} is {a_kind} {place}",
        "{name}, {a_kind}, stands {place}",
        "{name} is the name of {a_kind} {place}",
        "There is {a_kind} called {name} {place}",
        "You will find {name}, {a_kind}, {place}",
        "The {kind} {name} lies {place}",
    ),
    False: (
        "{name} is {a_kind}",
        "There is {a_kind} called {name}",
        "{name} is the name of {a_kind}",
        "Let us visit {name}, {a_kind}",
    ),
}
"""Whether the area is told -> first clauses."""

_ENGLISH_PHRASES = {
    "food": ("serves {}", "offers {}", "is known for {}"),
    "goods": ("sells {}", "offers {}", "is known for {}"),
    "theme": ("is devoted to {}", "centers on {}", "is known for {}"),
    "price": ("has {} prices", "charges {} prices", "sells at {} prices"),
    "rating": ("is rated {}", "has a rating of {}", "is given {} by its guests"),
    "seats": ("has {} seats", "has room for {} guests"),
    "opens": ("opens at {}", "is open from {}", "opens its doors at {}"),
    "closed": ("is closed on {}", "stays closed on {}", "rests on {}"),
}
_ENGLISH_SUBJECTS = ("It", "The place", "The {kind}", "This {kind}")

_KOREAN_OPENINGS = {
    True: (
        "{name:은} {area}에 있는 {kind}입니다",
        "{name:이라}는 {kind:이} {area}에 있습니다",
        "{name:은} {kind:이며} {area}에 자리하고 있습니다",
        "{name:은} {kind:으로}, {area}에서 만날 수 있습니다",
    ),
    False: (
        "{name:은} {kind}입니다",
        "{name:이라}는 {kind:이} 있습니다",
        "{name:을} 소개합니다. 이곳은 {kind}입니다",
    ),
}
_KOREAN_PHRASES = {
    "food": (
        ("{:을} ", "팔고 팔며 팝니다"),
        ("{:이} ", "맛있고 맛있으며 맛있습니다"),
        ("{:으로} ", "유명하고 유명하며 유명합니다"),
    ),
    "goods": (
        ("{:을} ", "팔고 팔며 팝니다"),
        ("{:을} ", "내놓고 내놓으며 내놓습니다"),
        ("{:으로} ", "유명하고 유명하며 유명합니다"),
    ),
    "theme": (
        ("{:을} ", "다루고 다루며 다룹니다"),
        ("{:을} ", "소개하고 소개하며 소개합니다"),
        ("{:으로} ", "유명하고 유명하며 유명합니다"),
    ),
    "price": (("가격은 {}", "이고 이며 입니다"), ("값은 {}", "이고 이며 입니다")),
    "rating": (("평점은 {}", "이고 이며 입니다"), ("손님들이 매긴 평점은 {}", "이고 이며 입니다")),
    "seats": (("좌석은 {}", "이고 이며 입니다"), ("자리가 {} ", "있고 있으며 있습니다")),
    "opens": (("{}에 문을 ", "열고 열며 엽니다"), ("{}부터 손님을 ", "맞고 맞으며 맞습니다")),
    "closed": (("{}에 ", "쉬고 쉬며 쉽니다"), ("{}에는 문을 ", "닫고 닫으며 닫습니다")),
}
"""Role -> beginnings with the value's place, and how the verb ends: "and", "while", full stop."""

_KOREAN_LINKS = ("", "그리고 ", "또 ", "참고로 ")


def article(word: str) -> str:
    """Return ``a`` or ``an`` for a word that is spoken as it is written."""
    return "an" if word[0].lower() in "aeio" else "a"


def tell_in_english(facts: Facts, generator: Random) -> str:
    """Write one or two English sentences that hold every value of `facts`."""
    area = facts.get("area")
    a_kind = f"{article(facts['kind'])} {facts['kind']}"
    place = f"{ENGLISH_AREAS[area]} {area}" if area is not None else ""
    opening = generator.choice(_ENGLISH_OPENINGS[area is not None])
    first = opening.format(name=facts["name"], kind=facts["kind"], a_kind=a_kind, place=place)
    phrases = [
        generator.choice(_ENGLISH_PHRASES[role]).format(value)
        for role, value in facts.items()
        if role in _ENGLISH_PHRASES
    ]
    if len(phrases) > 1 and generator.random() < 0.4:
        # The comma keeps "which" with the place, not with the area.
        first += f", which {phrases.pop(0)}"
    subject = generator.choice(_ENGLISH_SUBJECTS).format(kind=facts["kind"])
    return f"{first}. {subject} {_listed(phrases)}."


def _listed(phrases: list[str]) -> str:
    *before, last = phrases
    return f"{', '.join(before)} and {last}" if before else last


def tell_in_korean(facts: Facts, generator: Random) -> str:
    """Write two or three Korean sentences that hold every value of `facts`, in the polite formal style."""
    words = {role: Noun(value) for role, value in facts.items()}
    opening = generator.choice(_KOREAN_OPENINGS["area" in facts]).format(**words)
    phrases = [(role, *generator.choice(_KOREAN_PHRASES[role])) for role in facts if role in _KOREAN_PHRASES]
    told = []
    for number, (role, beginning, endings) in enumerate(phrases):
        joined, joined_again, final = endings.split()
        ending = final if number == len(phrases) - 1 else (joined, joined_again)[number % 2]
        told.append(beginning.format(words[role]) + ending)
    return f"{opening}. {generator.choice(_KOREAN_LINKS)}{' '.join(told)}."
