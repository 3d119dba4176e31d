"""Print the median time of five starts of lorakit with the given arguments.

python -m benchmarks.startup --help
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def main(arguments: list[str]) -> None:
    """Start lorakit five times, one after another."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lorakit", *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    print(f"lorakit {' '.join(arguments)}: {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
