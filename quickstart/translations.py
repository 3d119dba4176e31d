"""Write the rows of quickstart-translate: Korean sentences of a small grammar, and what they say in English.

A sentence tells who did, does not do, or will do what, when, where and with whom. No evaluation sentence is a training
sentence, and no evaluation row has the actor, the action and the thing of a training row together.

    python -m quickstart.translations    # writes src/lorakit/recipes/quickstart-translate-{train,eval}.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal

from quickstart.korean import with_particle

Part = Literal["train", "eval"]

FOLDER = Path(__file__).resolve().parent.parent / "src" / "lorakit" / "recipes"
COUNTS: dict[Part, int] = {"train": 4000, "eval": 200}

ACTORS = {
    "민수": "Minsu",
    "지영": "Jiyoung",
    "하은": "Haeun",
    "수아": "Sua",
    "친구": "my friend",
    "동생": "my brother",
    "어머니": "my mother",
    "아버지": "my father",
    "할머니": "my grandmother",
    "삼촌": "my uncle",
    "선생님": "the teacher",
    "의사": "the doctor",
    "이웃": "our neighbor",
    "아이": "the child",
}
TIMES = {
    "past": {
        "어제": "yesterday",
        "오늘 아침": "this morning",
        "지난주": "last week",
        "월요일": "on Monday",
        "어젯밤": "last night",
    },
    "future": {
        "내일": "tomorrow",
        "오늘 저녁": "this evening",
        "다음 주": "next week",
        "금요일": "on Friday",
        "주말": "at the weekend",
    },
}
PLACES = {
    "공원": "in the park",
    "학교": "at school",
    "시장": "at the market",
    "집": "at home",
    "도서관": "in the library",
    "부엌": "in the kitchen",
    "정원": "in the garden",
    "바닷가": "on the beach",
}
LOOKS = {"큰": "big", "작은": "small", "새": "new", "오래된": "old", "빨간": "red", "파란": "blue", "예쁜": "pretty"}


@dataclass(frozen=True, slots=True)
class Action:
    """A verb, and the things it is done to."""

    stem: str
    """What stands before 지 and 겠."""
    past: str
    """What stands before 습니다."""
    english: tuple[str, str]
    """Plain and past form."""
    things: dict[str, str]


ACTIONS = (
    Action("먹", "먹었", ("eat", "ate"), {"사과": "apple", "빵": "loaf of bread", "떡": "rice cake", "생선": "fish"}),
    Action("읽", "읽었", ("read", "read"), {"책": "book", "편지": "letter", "신문": "newspaper", "시": "poem"}),
    Action("사", "샀", ("buy", "bought"), {"모자": "hat", "가방": "bag", "우산": "umbrella", "시계": "watch"}),
    Action("만들", "만들었", ("make", "made"), {"의자": "chair", "상자": "box", "인형": "doll", "가방": "bag"}),
    Action("그리", "그렸", ("draw", "drew"), {"꽃": "flower", "나무": "tree", "새": "bird", "배": "ship"}),
    Action("찾", "찾았", ("find", "found"), {"열쇠": "key", "고양이": "cat", "반지": "ring", "우산": "umbrella"}),
    Action("보", "보았", ("see", "saw"), {"개": "dog", "고양이": "cat", "새": "bird", "말": "horse", "꽃": "flower"}),
    Action("팔", "팔았", ("sell", "sold"), {"자전거": "bicycle", "시계": "watch", "배": "ship", "꽃": "flower"}),
)
TRIPLES = tuple((actor, action, thing) for actor in ACTORS for action in ACTIONS for thing in action.things)
"""Who, does what, to what: an eighth of them is kept for evaluation."""


def sentence(actor: str, action: Action, thing: str, generator: Random) -> dict[str, str]:
    """Tell one triple in both languages, at a time, and where there is room with a look, a place and company."""
    tense = generator.choice(("past", "future"))
    time = generator.choice(tuple(TIMES[tense]))
    denied = generator.random() < 0.25
    look = generator.choice(tuple(LOOKS)) if generator.random() < 0.5 else ""
    place = generator.choice(tuple(PLACES)) if generator.random() < 0.5 else ""
    company = generator.choice([name for name in ACTORS if name != actor]) if generator.random() < 0.3 else ""
    korean = [
        with_particle(actor, "은"),
        f"{time}에" if time.endswith(("요일", "주", "주말", "저녁", "아침")) else time,
        f"{place}에서" if place else "",
        with_particle(company, "과") if company else "",
        look,
        with_particle(thing, "을"),
        _korean_verb(action, tense, denied),
    ]
    noun = f"{look and LOOKS[look]} {action.things[thing]}".strip()
    english = [
        ACTORS[actor],
        _english_verb(action, tense, denied),
        f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}",
        f"with {ACTORS[company]}" if company else "",
        PLACES.get(place, ""),
        TIMES[tense][time],
    ]
    target = " ".join(filter(None, english))
    return {"source": f"{' '.join(filter(None, korean))}.", "target": f"{target[0].upper()}{target[1:]}."}


def _korean_verb(action: Action, tense: str, denied: bool) -> str:
    if denied:
        return f"{action.stem}지 {'않았습니다' if tense == 'past' else '않겠습니다'}"
    return f"{action.past}습니다" if tense == "past" else f"{action.stem}겠습니다"


def _english_verb(action: Action, tense: str, denied: bool) -> str:
    plain, past = action.english
    if denied:
        return f"{'did' if tense == 'past' else 'will'} not {plain}"
    return past if tense == "past" else f"will {plain}"


@cache
def triples(part: Part) -> tuple[tuple[str, Action, str], ...]:
    """Return the triples that rows of `part` may tell; the two parts share none."""
    mixed = list(TRIPLES)
    Random("triples").shuffle(mixed)
    held_out = len(mixed) // 8
    return tuple(mixed[:held_out] if part == "eval" else mixed[held_out:])


def rows(part: Part) -> Iterator[dict[str, str]]:
    """Yield the rows of `part`, no two alike."""
    generator = Random(f"translations {part}")
    seen: set[str] = set()
    while len(seen) < COUNTS[part]:
        row = sentence(*generator.choice(triples(part)), generator)
        if row["source"] not in seen:
            seen.add(row["source"])
            yield row


def text(part: Part) -> str:
    """Return the file of `part`: a JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(part))


def main() -> None:
    """Write both files into the package."""
    for part in COUNTS:
        file = FOLDER / f"quickstart-translate-{part}.jsonl"
        file.write_text(text(part), encoding="utf-8")
        print(f"{file}: {COUNTS[part]} rows, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
