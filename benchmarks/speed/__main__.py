"""Compare lorakit with its peers on the same work, and write the page of results.

python -m benchmarks.speed                             # all rows, five rounds: benchmarks/results.md, about an hour
python -m benchmarks.speed gpt_lora merge --rounds 3   # a part: runs/bench/results.md
python -m benchmarks.speed --tiny --rounds 1           # does it work? small models, and numbers that mean nothing

What was measured is kept in runs/bench/measurements.jsonl; a run that was interrupted goes on from there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    """Run what the command line says; 1 where an arm failed, 2 where a row is unknown."""
    asked = _asked()
    if asked.tiny:
        # For what is imported below, and for the arms' processes.
        os.environ["LORAKIT_BENCH_TINY"] = "1"
    from benchmarks.speed import harness, plots
    from benchmarks.speed.facts import facts
    from benchmarks.speed.page import page
    from benchmarks.speed.rows import FILES, WHEN_NAMED, row_of

    unknown = [name for name in asked.rows if name not in FILES]
    if unknown:
        print(f"no row is called {unknown[0]}; there are {', '.join(FILES)}", file=sys.stderr)
        return 2
    folder = asked.folder / "tiny" if asked.tiny else asked.folder
    journal = harness.Journal(folder / "measurements.jsonl")
    failed = False
    for name in asked.rows or [name for name in FILES if name not in WHEN_NAMED]:
        for line in harness.run(row_of(name), asked.rounds, folder / "materials", journal):
            print(line, flush=True)
            failed = failed or line.startswith(harness.FAILED)
    partly = bool(asked.rows) or asked.tiny
    written = folder / "results.md" if partly else harness.ROOT / "benchmarks" / "results.md"
    told = [(row, journal.of(row.name)) for row in map(row_of, FILES)]
    written.write_text(page(told, facts()), encoding="utf-8")
    for row, arms in told:
        if row.growth is not None and arms:
            plots.picture(written.with_name(f"{row.name}.png"), row.growth, arms)
    print(written)
    return int(failed)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="left out: all but those that need a GPU")
    parser.add_argument("--rounds", type=int, default=5, help="of each row; left out: 5")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="of models, rows and measurements")
    parser.add_argument("--tiny", action="store_true", help="small work, to try the way")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
