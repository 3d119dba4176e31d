"""A picture of how cost grows. It is drawn where matplotlib is, in the environment of the peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed import arithmetic, harness
from benchmarks.speed.row import Growth


def picture(file: Path, growth: Growth, arms: Mapping[str, Sequence[harness.Measurement]]) -> None:
    """Draw seconds and memory against what grows, into a PNG."""
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for line in growth.lines:
        for value in growth.values:
            if found := arms.get(f"{line} · {value}"):
                cost = arithmetic.middle(found, arithmetic.seconds), arithmetic.middle(found, arithmetic.peak) / 1e6
                lines.setdefault(line, []).append((value, *cost))
    asked = json.dumps({"file": str(file.resolve()), "axis": growth.axis, "lines": lines})
    subprocess.run([harness.PEERS, "-m", __name__], input=asked, text=True, check=True, cwd=harness.ROOT)


def draw(file: str, axis: str, lines: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Write the PNG; each line is a list of (value, seconds, megabytes)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(8, 3), dpi=90, layout="constrained")
    for panel, column, label in zip(panels, (1, 2), ("seconds", "peak memory, MB"), strict=True):
        for name, points in lines.items():
            panel.plot([point[0] for point in points], [point[column] for point in points], "o-", label=name)
        panel.set(xlabel=axis, ylabel=label, ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    # Without the name of the program, the same numbers give the same bytes.
    figure.savefig(file, metadata={"Software": None})


if __name__ == "__main__":
    told: dict[str, Any] = json.load(sys.stdin)
    draw(**told)
