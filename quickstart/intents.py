"""Write the rows of quickstart-classify: messages to a shop in Korean and English, and what each is about.

A message joins an opening, a wish and a closing. One wish in ten, and a third of the things that are named, stand in
evaluation rows alone, so that no evaluation row can be remembered.

    python -m quickstart.intents         # writes src/lorakit/recipes/quickstart-classify-{train,eval}.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Literal

from quickstart.korean import Noun

Language = Literal["en", "ko"]
Part = Literal["train", "eval"]

FOLDER = Path(__file__).resolve().parent.parent / "src" / "lorakit" / "recipes"
COUNTS: dict[Part, int] = {"train": 2400, "eval": 240}

THINGS: dict[Language, tuple[str, ...]] = {
    "en": ("chair", "coat", "lamp", "bag", "clock", "scarf", "desk", "hat", "bicycle", "watch", "book", "ring"),
    "ko": tuple(
        map(Noun, ("의자", "외투", "등", "가방", "시계", "우산", "책상", "모자", "자전거", "장갑", "책", "반지"))
    ),
}
OPENINGS: dict[Language, tuple[str, ...]] = {
    "en": ("", "", "Hello. ", "Good morning. ", "Excuse me, one thing: ", "Hi there! ", "I write about the {thing}. "),
    "ko": ("", "", "안녕하세요. ", "저기요, ", "말씀드릴 것이 있습니다. ", "수고하십니다. ", "{thing:} 일로 씁니다. "),
}
CLOSINGS: dict[Language, tuple[str, ...]] = {
    "en": ("", "", " Thank you.", " Please write back soon.", " It is for my mother.", " I live near the station."),
    "ko": ("", "", " 고맙습니다.", " 답장 기다리겠습니다.", " 어머니께 드릴 것입니다.", " 저는 역 근처에 삽니다."),
}
WISHES: dict[str, dict[Language, tuple[str, ...]]] = {
    "buy": {
        "en": (
            "I want to buy the {thing}.",
            "I would like to order a {thing}.",
            "Please put one {thing} in my order.",
            "Can I buy two of the {thing}?",
            "I will take the {thing}.",
            "Please sell me the {thing} in the window.",
            "I decided to order the {thing} today.",
            "One {thing} for me, please, I want to order it.",
            "My friend and I want to buy a {thing} each.",
            "I am ready to order the red {thing}.",
        ),
        "ko": (
            "{thing:을} 사고 싶습니다.",
            "{thing:을} 주문하겠습니다.",
            "{thing} 하나 주문해 주세요.",
            "{thing:을} 두 개 살 수 있나요?",
            "{thing:으로} 주문합니다.",
            "창가에 있는 {thing:을} 사겠습니다.",
            "오늘 {thing:을} 주문하려고 합니다.",
            "친구와 함께 {thing:을} 사려고 합니다.",
            "저도 {thing} 하나 사고 싶어요.",
            "빨간 {thing:을} 주문할게요.",
        ),
    },
    "return": {
        "en": (
            "I want to return the {thing}.",
            "Please give me my money back for the {thing}.",
            "How can I send the {thing} back?",
            "I would like a refund for the {thing}.",
            "The {thing} is too small, so I will return it.",
            "Can I bring the {thing} back next week?",
            "I do not need the {thing} any more and want my money back.",
            "I sent the {thing} back, when do I get the refund?",
            "May I return a {thing} that I have used once?",
            "A refund for the {thing}, please.",
        ),
        "ko": (
            "{thing:을} 반품하고 싶습니다.",
            "{thing} 값을 환불해 주세요.",
            "{thing:을} 어떻게 돌려보내나요?",
            "{thing:을} 환불받고 싶습니다.",
            "{thing:이} 너무 작아서 반품하겠습니다.",
            "다음 주에 {thing:을} 반품해도 되나요?",
            "{thing:이} 필요 없으니 환불을 원합니다.",
            "{thing:을} 돌려보냈는데 환불은 언제 되나요?",
            "한 번 쓴 {thing:을} 반품할 수 있나요?",
            "{thing} 환불 부탁드립니다.",
        ),
    },
    "delivery": {
        "en": (
            "When will the {thing} arrive?",
            "The {thing} has not arrived yet.",
            "Where is the parcel with my {thing}?",
            "Can you deliver the {thing} on Monday?",
            "How many days does the delivery of the {thing} take?",
            "Please deliver the {thing} to another address.",
            "I still wait for the parcel with the {thing}.",
            "Has the {thing} been sent? It has not arrived.",
            "The delivery of my {thing} is late.",
            "Tell me the day on which the {thing} will arrive.",
        ),
        "ko": (
            "{thing:은} 언제 도착하나요?",
            "{thing:이} 아직 도착하지 않았습니다.",
            "제 {thing} 택배는 어디에 있나요?",
            "{thing:을} 월요일에 배송해 주실 수 있나요?",
            "{thing} 배송은 며칠 걸리나요?",
            "{thing:을} 다른 주소로 배송해 주세요.",
            "{thing} 택배를 아직 기다리고 있습니다.",
            "{thing:을} 보내셨나요? 아직 도착하지 않았어요.",
            "{thing} 배송이 늦습니다.",
            "{thing:이} 도착하는 날을 알려 주세요.",
        ),
    },
    "price": {
        "en": (
            "How much is the {thing}?",
            "What does the {thing} cost?",
            "Is the price of the {thing} the same online?",
            "Tell me the price of the {thing}.",
            "Will the {thing} cost less next month?",
            "Is there a cheaper {thing}?",
            "What is the price of two, a {thing} for me and one for her?",
            "How much does the blue {thing} cost?",
            "I do not see a price on the {thing}.",
            "Does the big {thing} cost much more?",
        ),
        "ko": (
            "{thing:은} 얼마인가요?",
            "{thing} 가격이 어떻게 되나요?",
            "인터넷에서도 {thing} 가격이 같나요?",
            "{thing} 가격을 알려 주세요.",
            "다음 달에는 {thing} 값이 내리나요?",
            "더 싼 {thing:이} 있나요?",
            "{thing} 두 개는 얼마인가요?",
            "파란 {thing:은} 가격이 얼마인가요?",
            "{thing}에 가격이 쓰여 있지 않습니다.",
            "큰 {thing:은} 값이 훨씬 비싼가요?",
        ),
    },
    "praise": {
        "en": (
            "The {thing} is beautiful, I love it.",
            "I am very happy with the {thing}.",
            "What a wonderful {thing}!",
            "My family loves the new {thing}.",
            "The {thing} is even better than I hoped, great work.",
            "I tell all my friends how good the {thing} is.",
            "The best {thing} I have ever had, wonderful.",
            "You made a great {thing}, I am happy.",
            "The {thing} looks beautiful in our house.",
            "I love the color of the {thing}, it is great.",
        ),
        "ko": (
            "{thing:이} 정말 예쁘고 마음에 듭니다.",
            "{thing:을} 사서 무척 기쁩니다.",
            "참 훌륭한 {thing}입니다!",
            "우리 가족 모두 새 {thing:을} 좋아합니다.",
            "{thing:이} 생각보다 더 좋아서 기쁩니다.",
            "친구들에게 {thing:이} 좋다고 말했습니다.",
            "제가 써 본 {thing} 가운데 가장 훌륭합니다.",
            "좋은 {thing:을} 만들어 주셔서 기쁩니다.",
            "{thing:이} 우리 집에서 정말 예쁩니다.",
            "{thing} 색이 예뻐서 마음에 쏙 듭니다.",
        ),
    },
    "complaint": {
        "en": (
            "The {thing} is broken.",
            "The {thing} stopped working after one day.",
            "I am angry, the {thing} came with a hole in it.",
            "This {thing} is bad and does not work.",
            "There is a crack in the {thing}.",
            "The {thing} was dirty and broken.",
            "Your {thing} is the worst one I have seen.",
            "I am angry because the {thing} does not work.",
            "A part of the {thing} is missing and another is broken.",
            "The {thing} fell apart, that is very bad.",
        ),
        "ko": (
            "{thing:이} 고장 났습니다.",
            "{thing:이} 하루 만에 망가졌습니다.",
            "{thing}에 구멍이 있어서 화가 납니다.",
            "이 {thing:은} 나쁘고 쓸 수 없습니다.",
            "{thing}에 금이 갔습니다.",
            "{thing:이} 더럽고 망가져 있었습니다.",
            "제가 본 {thing} 가운데 가장 나쁩니다.",
            "{thing:이} 고장 나서 화가 납니다.",
            "{thing}의 한쪽이 없고 다른 쪽은 망가졌습니다.",
            "{thing:이} 부서졌습니다. 정말 나쁩니다.",
        ),
    },
}
"""Label -> its wishes in each language, ten each; the last is kept for evaluation."""
KEPT_WISHES, KEPT_THINGS = 1, 4


def message(label: str, language: Language, part: Part, generator: Random) -> str:
    """Write one message of a kind."""
    held_out = part == "eval"
    wishes, things = WISHES[label][language], THINGS[language]
    thing = generator.choice(things[-KEPT_THINGS:] if held_out else things[:-KEPT_THINGS])
    wish = generator.choice(wishes if held_out else wishes[:-KEPT_WISHES])
    whole = generator.choice(OPENINGS[language]) + wish + generator.choice(CLOSINGS[language])
    return whole.format(thing=thing)


def rows(part: Part) -> Iterator[dict[str, str]]:
    """Yield the rows of `part`, no two alike; labels and languages take turns."""
    generator = Random(f"intents {part}")
    seen: set[str] = set()
    kinds: list[tuple[str, Language]] = [(label, language) for label in WISHES for language in THINGS]
    while len(seen) < COUNTS[part]:
        label, language = kinds[len(seen) % len(kinds)]
        text = message(label, language, part, generator)
        if text not in seen:
            seen.add(text)
            yield {"text": text, "label": label}


def text(part: Part) -> str:
    """Return the file of `part`: a JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(part))


def main() -> None:
    """Write both files into the package."""
    for part in COUNTS:
        file = FOLDER / f"quickstart-classify-{part}.jsonl"
        file.write_text(text(part), encoding="utf-8")
        print(f"{file}: {COUNTS[part]} rows, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
