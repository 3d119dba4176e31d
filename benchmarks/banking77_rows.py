"""Choose the rows of Banking77 that the figures are made with, once: their numbers are kept in banking77_rows.json.

python -m benchmarks.banking77_rows ../shared/data/banking77/train.csv
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections import defaultdict
from pathlib import Path

COUNTS = {"train": 2000, "validation": 500, "held_out": 1000}
CHOSEN = Path(__file__).with_suffix(".json")
SEED = 77


def chosen(table: Path, seed: int = SEED) -> dict[str, list[int]]:
    """Return the row numbers of each part, from 1 without the header, every class in its share of the whole table.

    A text that stands in the table twice is taken once, so that no part knows a row of another.
    """
    generator = random.Random(seed)
    of_class: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    with table.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            text = " ".join(row["text"].lower().split())
            if text not in seen:
                of_class[row["category"]].append(number)
            seen.add(text)
    for name in sorted(of_class):
        generator.shuffle(of_class[name])
    parts: dict[str, list[int]] = {}
    for part, count in COUNTS.items():
        shares = _shares({name: len(numbers) for name, numbers in of_class.items()}, count)
        parts[part] = [number for name, share in shares.items() for number in of_class[name][:share]]
        of_class = {name: numbers[shares[name] :] for name, numbers in of_class.items()}
        generator.shuffle(parts[part])
    return parts


def _shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """Divide `count` in proportion to `sizes`: whole numbers, what is left over to the largest remainders."""
    total = sum(sizes.values())
    shares = {name: count * size // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(count * sizes[name] % total), name))
    for name in by_remainder[: count - sum(shares.values())]:
        shares[name] += 1
    return shares


if __name__ == "__main__":
    parts = chosen(Path(sys.argv[1]))
    lines = [f' "{part}": {json.dumps(numbers)}' for part, numbers in parts.items()]
    CHOSEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
