"""Lists of facts and plain sentences that repeat them, in English and Korean: what teaches a small model to copy.

The layout and the wording differ from the quickstart's, which is left to fine-tuning, and no place of the quickstart's
evaluation rows is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from quickstart import vocabulary
from quickstart.korean import Noun
from quickstart.rows import KOREAN_KEYS, Language, combination, evaluation_combinations, invent
from quickstart.sentences import Facts, article
from quickstart.vocabulary import words
from scripts import korean_words as korean

_ENGLISH_PEOPLE = words(
    "Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Ida, Jack, Kate, Leo, Mary, Noah, Olive, Peter, "
    "Quinn, Rose, Sam, Tina, Una, Victor, Will, Yuna, Zoe, Alice, Brian, Cora, Dan, Ella, Frank, Gina, Hugo, "
    "Iris, John, Kim, Lena, Mark, Nora, Oscar"
)
_ENGLISH_JOBS = words(
    "teacher, doctor, nurse, cook, farmer, painter, writer, driver, singer, baker, lawyer, builder, student, "
    "tailor, sailor, gardener, judge, pilot, poet, dancer"
)
_ENGLISH_HOBBIES = words(
    "reading, swimming, fishing, cooking, singing, painting, chess, dancing, running, cycling, skating, gardening"
)
_ENGLISH_TOWNS = words(
    "London, Paris, Rome, Berlin, Madrid, Vienna, Seoul, Busan, Tokyo, Boston, Oslo, Lisbon, Dublin, Prague, "
    "Athens, Cairo, Lima, Delhi"
)
_ENGLISH_THINGS = words(
    "book, lamp, chair, table, bag, hat, coat, shoe, clock, cup, plate, box, knife, mirror, pen, ball, toy, "
    "basket, bottle, blanket"
)
_ENGLISH_COLORS = words("red, blue, green, white, black, yellow, brown, gray, pink, purple, orange, silver, golden")
_ENGLISH_MATERIALS = words("wood, iron, glass, paper, cotton, leather, clay, stone, silver, plastic, wool, silk")

_ENGLISH_TELLINGS = {
    "town": ("{subject} lives in {value}.", "{value} is where {subject} lives."),
    "hobby": ("{subject} likes {value}.", "What {subject} likes best is {value}."),
    "favorite food": ("{subject} likes to eat {value}.", "{value} is on the table."),
    "age": ("{subject} is {value} years old.",),
    "color": ("It is {value}.", "The {subject} is {value}."),
    "material": ("It is made of {value}.", "Someone made it of {value}."),
    "owner": ("It belongs to {value}.", "{value} owns the {subject}."),
    "shop": ("It was found in a {value}.", "You can buy it in the {value}."),
    "area": ("The {value} is not far away.", "Walk to the {value} to see it."),
    "rating": ("The guests gave it {value}.", "People have rated it {value}."),
    "seats": ("There are {value} seats.", "There is room for {value} people."),
    "opening hour": ("The doors open at {value}.", "Come after {value}, when it is open."),
    "closing day": ("Do not come on {value}, it is closed.", "On {value} the doors stay closed."),
    "food": ("People come here for {value}.", "Most guests order {value}."),
    "goods": ("They sell {value} here.", "Look for {value} on the shelves."),
    "theme": ("Here you learn about {value}.", "It tells you about {value}."),
}
"""Key -> natural ways to say it, besides naming the key."""


def _english_place(generator: Random) -> Facts:
    keys = {"opens": "opening hour", "closed": "closing day"}
    return {keys.get(role, role): value for role, value in _place("en", generator).items()}


def _korean_place(generator: Random) -> Facts:
    return {KOREAN_KEYS[role]: value for role, value in _place("ko", generator).items()}


def _place(language: Language, generator: Random) -> Facts:
    while combination(facts := invent(language, "train", generator)) in evaluation_combinations():
        pass
    return facts


def _english_person(generator: Random) -> Facts:
    return {
        "name": generator.choice(_ENGLISH_PEOPLE),
        "age": str(generator.randint(7, 90)),
        "job": generator.choice(_ENGLISH_JOBS),
        "town": generator.choice(_ENGLISH_TOWNS),
        "hobby": generator.choice(_ENGLISH_HOBBIES),
        "favorite food": generator.choice(vocabulary.ENGLISH_OFFERS["food"]),
    }


def _english_thing(generator: Random) -> Facts:
    return {
        "thing": generator.choice(_ENGLISH_THINGS),
        "color": generator.choice(_ENGLISH_COLORS),
        "material": generator.choice(_ENGLISH_MATERIALS),
        "price": f"{generator.randint(2, 99)} dollars",
        "owner": generator.choice(_ENGLISH_PEOPLE),
        "shop": generator.choice(vocabulary.ENGLISH_KINDS["goods"]),
    }


def _korean_person(generator: Random) -> Facts:
    return {
        "이름": generator.choice(korean.FAMILY_NAMES) + generator.choice(korean.GIVEN_NAMES),
        "나이": f"{generator.randint(7, 90)}살",
        "직업": generator.choice(korean.JOBS),
        "사는 곳": generator.choice(korean.CITIES),
        "취미": generator.choice(korean.HOBBIES),
        "좋아하는 음식": generator.choice(korean.FOODS),
    }


def _korean_thing(generator: Random) -> Facts:
    return {
        "물건": generator.choice(korean.THINGS),
        "색": generator.choice(korean.COLORS),
        "재료": generator.choice(korean.MATERIALS),
        "값": f"{generator.randint(1, 99)}천 원",
        "주인": generator.choice(korean.GIVEN_NAMES),
        "파는 곳": generator.choice(vocabulary.KOREAN_KINDS["goods"]),
    }


_INVENTORS: dict[Language, tuple[Callable[[Random], Facts], ...]] = {
    "en": (_english_place, _english_place, _english_person, _english_thing),
    "ko": (_korean_place, _korean_place, _korean_person, _korean_thing),
}


def _listed(facts: Facts, generator: Random) -> str:
    """Lay out facts as a list, in one of several ways; never with the bars of the quickstart."""
    link, joint = generator.choice(((": ", "\n"), (" - ", "\n"), (": ", ", "), (" = ", "; "), (": ", "; ")))
    return joint.join(f"{key}{link}{value}" for key, value in facts.items())


def _english_sentences(facts: Facts, generator: Random) -> Iterator[str]:
    subject = next(iter(facts.values()))
    for key, value in facts.items():
        if key in ("name", "thing"):
            yield generator.choice((f"This is about {value}.", f"The {key} is {value}.", f"Here we speak of {value}."))
        elif key in ("kind", "job"):
            yield generator.choice((f"The {key} is {value}.", f"{subject} is {article(value)} {value}."))
        elif key in _ENGLISH_TELLINGS and generator.random() < 0.6:
            yield generator.choice(_ENGLISH_TELLINGS[key]).format(subject=subject, value=value)
        else:
            yield generator.choice(
                (
                    f"The {key} is {value}.",
                    f"For {subject}, the {key} is {value}.",
                    f"As for the {key}, it is {value}.",
                    f"Its {key}: {value}.",
                )
            )


def _korean_sentences(facts: Facts, generator: Random) -> Iterator[str]:
    subject = Noun(next(iter(facts.values())))
    for key, value in facts.items():
        role, told = Noun(key), Noun(value)
        if value == subject:
            yield generator.choice((f"{told:을} 알아봅시다.", f"{role:은} {told}입니다.", f"{told}에 대한 글입니다."))
        else:
            yield generator.choice(
                (
                    f"{role:은} {told}입니다.",
                    f"{subject}의 {role:은} {told}입니다.",
                    f"{role:을} 보면 {told}입니다.",
                    f"{role:이} 무엇이냐고 물으면 {told:이라}고 답합니다.",
                )
            )


def documents(language: Language, seed: int, size: int) -> list[str]:
    """Return lists of facts with their telling, about `size` bytes of UTF-8 together."""
    generator = Random(f"facts {language} {seed}")
    tell = _english_sentences if language == "en" else _korean_sentences
    found: list[str] = []
    total = 0
    while total < size:
        passages = []
        for _ in range(generator.randint(1, 3)):
            facts = generator.choice(_INVENTORS[language])(generator)
            passages.append(f"{_listed(facts, generator)}\n\n{' '.join(tell(facts, generator))}")
        found.append("\n\n".join(passages))
        total += len(found[-1].encode())
    return found
