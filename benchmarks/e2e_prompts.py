"""Print the first distinct prompts of an E2E table as JSONL, for `lorakit generate --input`.

    python -m benchmarks.e2e_prompts devset.csv --count 200 > prompts.jsonl

The table holds several sentences for each set of facts, so that its rows repeat each prompt.
"""

from __future__ import annotations

import argparse
import csv
import json
from itertools import islice
from pathlib import Path


def main() -> None:
    """Print one prompt a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV with a column mr")
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    with options.table.open(encoding="utf-8-sig", newline="") as file:
        prompts = dict.fromkeys(row["mr"] for row in csv.DictReader(file))
    for prompt in islice(prompts, options.count):
        print(json.dumps({"prompt": prompt}, ensure_ascii=False))


if __name__ == "__main__":
    main()
