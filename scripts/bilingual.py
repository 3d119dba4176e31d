"""Write the text that tests learn from: short documents of our own, some Korean and some English.

python -m scripts.bilingual          # writes tests/data/bilingual.txt, about 50 kB
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from quickstart import intents, translations
from scripts import korean_text

FILE = Path(__file__).resolve().parent.parent / "tests" / "data" / "bilingual.txt"
SIZE = 50_000
"""Bytes of UTF-8, about; half of them English."""


def english_documents(seed: int) -> Iterator[str]:
    """Yield documents of three to six English sentences, told or written to a shop, without end."""
    generator = Random(f"english {seed}")
    labels = tuple(intents.WISHES)
    while True:
        told = [
            translations.sentence(*generator.choice(translations.TRIPLES), generator)["target"]
            if generator.random() < 0.7
            else intents.message(generator.choice(labels), "en", "train", generator).strip()
            for _ in range(generator.randint(3, 6))
        ]
        yield " ".join(told)


def text(seed: int = 1) -> str:
    """Return the documents, two blank lines between them."""
    half = SIZE // 2
    english, total = [], 0
    for document in english_documents(seed):
        english.append(document)
        total += len(document.encode())
        if total >= half:
            break
    documents = [*korean_text.documents(seed, half), *english]
    Random(f"bilingual {seed}").shuffle(documents)
    return "\n\n\n".join(documents) + "\n"


def main() -> None:
    """Write the file."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
