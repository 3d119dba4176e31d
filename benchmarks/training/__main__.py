"""Compare arms on the same work, interleaved A B A B, and print medians and ratios to the first.

python -m benchmarks.training gpt_lora --arms trainer lorakit "lorakit train.dtype=float32" --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.training.work import WORKS, make


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=list(WORKS))
    parser.add_argument("--arms", nargs="+", default=["trainer", "grouped", "lorakit", "lorakit train.dtype=float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    asked = parser.parse_args()
    folder = asked.folder / asked.work
    if not (folder / "work.json").exists():
        make(WORKS[asked.work], folder)
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in asked.arms}
    for number in range(asked.rounds):
        for arm in asked.arms:
            found[arm].append(once(arm, folder))
            print(f"round {number + 1}  {arm:<32} {shown(found[arm][-1])}", file=sys.stderr, flush=True)
    (folder / "found.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    for line in table(found):
        print(line)


def once(arm: str, folder: Path) -> dict[str, Any]:
    """Run one arm in a process of its own."""
    name, *settings = arm.split()
    command = [sys.executable, "-m", "benchmarks.training.arms", name, str(folder), *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{arm} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def shown(result: dict[str, Any]) -> str:
    """Return one result in a line."""
    return (
        f"{result['tokens_per_second']:7,.0f} tok/s  {result['tokens_per_processor_second']:7,.0f} tok/core-s  "
        f"{result['peak_bytes'] / 1e6:6,.0f} MB  loss {result['loss']:.4f}"
    )


def table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the medians as the lines of a Markdown table; ratios are taken round by round."""
    first = next(iter(found.values()))
    lines = [
        "| arm | tokens/s | ratio | least to most | tokens a core-second, ratio | peak memory | ratio | loss |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm, results in found.items():

        def against(key: str, results: list[dict[str, Any]] = results) -> list[float]:
            return [one[key] / base[key] for one, base in zip(results, first, strict=True)]

        def median(key: str, results: list[dict[str, Any]] = results) -> float:
            return statistics.median(one[key] for one in results)

        wall, core = against("tokens_per_second"), against("tokens_per_processor_second")
        cells = [
            arm,
            f"{median('tokens_per_second'):,.0f}",
            f"{statistics.median(wall):.2f}",
            f"{min(wall):.2f} to {max(wall):.2f}",
            f"{statistics.median(core):.2f}",
            f"{median('peak_bytes') / 1e6:,.0f} MB",
            f"{statistics.median(against('peak_bytes')):.2f}",
            f"{results[-1]['loss']:.4f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
