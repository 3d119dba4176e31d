"""Write Korean text for pretraining: short paragraphs, dialogues, definitions, lists of facts.

A document follows one topic: from each of its stages one sentence is drawn, and its open places are filled from the
word lists; a place named twice in a document (`{person}`) keeps its word. Particles and verb forms follow the word.
"""

from __future__ import annotations

from random import Random
from typing import Any

from scripts import fact_text
from scripts import korean_words as words
from scripts.korean_topics import DIALOGUE, TOPICS

FACT_SHARE = 0.3
"""Share of the bytes that are lists of facts and their telling."""

_LISTS: dict[str, tuple[Any, ...]] = {
    "person": words.GIVEN_NAMES,
    "other": words.GIVEN_NAMES,
    "family": words.FAMILY_NAMES,
    "relation": words.RELATIONS,
    "job": words.JOBS,
    "city": words.CITIES,
    "town": words.CITIES,
    "place": words.PLACES,
    "spot": words.PLACES,
    "food": words.FOODS,
    "dish": words.FOODS,
    "thing": words.THINGS,
    "tool": words.THINGS,
    "animal": words.ANIMALS,
    "beast": words.ANIMALS,
    "plant": words.PLANTS,
    "color": words.COLORS,
    "material": words.MATERIALS,
    "season": words.SEASONS,
    "month": words.MONTHS,
    "day": words.DAYS,
    "time": words.TIMES,
    "hobby": words.HOBBIES,
    "subject": words.SUBJECTS,
    "feel": words.FEELINGS,
    "quality": words.QUALITIES,
    "trait": words.QUALITIES,
    "taste": words.TASTES,
    "sky": words.SKIES,
    "air": words.SKIES,
    "eat": words.EATING,
    "handle": words.HANDLING,
    "work": words.HANDLING,
    "go": words.MOVING,
    "rest": words.RESTING,
    "number": tuple(range(2, 100)),
    "small": tuple(range(1, 13)),
}

_NO_DIALOGUE = tuple(topic for topic in TOPICS if topic is not DIALOGUE)


class _Words(dict[str, Any]):
    """The words of one document: a place is filled when it is first named, keeps its word, and shares it with none."""

    def __init__(self, generator: Random) -> None:
        super().__init__()
        self._generator = generator
        self._taken: list[Any] = []

    def __missing__(self, place: str) -> Any:
        choices = [word for word in _LISTS[place.rstrip("0123456789")] if word not in self._taken]
        self[place] = self._generator.choice(choices)
        self._taken.append(self[place])
        return self[place]


def document(generator: Random) -> str:
    """Write one document: one or two paragraphs of one topic each, or a dialogue."""
    topic = generator.choice(TOPICS)
    topics = [topic] if topic is DIALOGUE else [topic, generator.choice(_NO_DIALOGUE)][: generator.randint(1, 2)]
    found = []
    for stages in topics:
        chosen = _Words(generator)
        joint = "\n" if stages is DIALOGUE else " "
        found.append(joint.join(generator.choice(stage).format_map(chosen) for stage in stages))
    return "\n\n".join(found)


def documents(seed: int, size: int) -> list[str]:
    """Return documents of about `size` bytes of UTF-8 together, no two alike; facts make `FACT_SHARE` of it."""
    generator = Random(f"korean {seed}")
    found: dict[str, None] = {}
    total = 0
    while total < size * (1 - FACT_SHARE):
        written = document(generator)
        if written not in found:
            found[written] = None
            total += len(written.encode())
    mixed = [*found, *fact_text.documents(seed, round(size * FACT_SHARE))]
    generator.shuffle(mixed)
    return mixed
