"""Lists of facts and plain sentences that repeat them, in Korean: what teaches a small model to copy.

The layout and the wording differ from the quickstart's, which is left to fine-tuning, and no place of the quickstart's
evaluation rows is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from quickstart import vocabulary
from quickstart.korean import Noun
from quickstart.rows import KOREAN_KEYS, combination, evaluation_combinations, invent
from quickstart.sentences import Facts
from scripts import korean_words as korean


def _place(generator: Random) -> Facts:
    while combination(facts := invent("ko", "train", generator)) in evaluation_combinations():
        pass
    return {KOREAN_KEYS[role]: value for role, value in facts.items()}


def _person(generator: Random) -> Facts:
    return {
        "이름": generator.choice(korean.FAMILY_NAMES) + generator.choice(korean.GIVEN_NAMES),
        "나이": f"{generator.randint(7, 90)}살",
        "직업": generator.choice(korean.JOBS),
        "사는 곳": generator.choice(korean.CITIES),
        "취미": generator.choice(korean.HOBBIES),
        "좋아하는 음식": generator.choice(korean.FOODS),
    }


def _thing(generator: Random) -> Facts:
    return {
        "물건": generator.choice(korean.THINGS),
        "색": generator.choice(korean.COLORS),
        "재료": generator.choice(korean.MATERIALS),
        "값": f"{generator.randint(1, 99)}천 원",
        "주인": generator.choice(korean.GIVEN_NAMES),
        "파는 곳": generator.choice(vocabulary.KOREAN_KINDS["goods"]),
    }


_INVENTORS = (_place, _place, _person, _thing)


def _listed(facts: Facts, generator: Random) -> str:
    """Lay out facts as a list, in one of several ways; never with the bars of the quickstart."""
    link, joint = generator.choice(((": ", "\n"), (" - ", "\n"), (": ", ", "), (" = ", "; "), (": ", "; ")))
    return joint.join(f"{key}{link}{value}" for key, value in facts.items())


def _sentences(facts: Facts, generator: Random) -> Iterator[str]:
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


def documents(seed: int, size: int) -> list[str]:
    """Return lists of facts with their telling, about `size` bytes of UTF-8 together."""
    generator = Random(f"facts ko {seed}")
    found: list[str] = []
    total = 0
    while total < size:
        passages = []
        for _ in range(generator.randint(1, 3)):
            facts = generator.choice(_INVENTORS)(generator)
            passages.append(f"{_listed(facts, generator)}\n\n{' '.join(_sentences(facts, generator))}")
        found.append("\n\n".join(passages))
        total += len(found[-1].encode())
    return found
