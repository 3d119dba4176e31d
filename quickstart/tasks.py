"""What `make quickstart-classify` and `make quickstart-translate` run: train, and compare what came before and after.

Each step is a command of `lorakit`, printed before it runs, so that a reader can type it again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console
from run import lorakit

TEXTS = {
    "classify": ("안녕하세요. 시계가 고장 났습니다.", "Hello. When will the lamp arrive?"),
    "translate": ("선생님은 어제 시장에서 빨간 모자를 샀습니다.", "하은은 내일 친구와 큰 개를 보지 않겠습니다."),
}
"""Texts that stand in no row."""


def main() -> None:
    """Run the commands of the recipe that is named, and print how long they took."""
    if len(sys.argv) != 2 or sys.argv[1] not in TEXTS:
        sys.exit(f"usage: python quickstart/tasks.py {'|'.join(TEXTS)}")
    name = sys.argv[1]
    started = time.perf_counter()
    console = Console(highlight=False)
    run = Path(f"runs/quickstart-{name}")
    rows = f"recipe:quickstart-{name}-eval.jsonl"
    lorakit(console, "train", f"quickstart-{name}", "-o", run, "--force")
    lorakit(console, "evaluate", run, "--data", rows, "--against", "base")
    for text in TEXTS[name]:
        lorakit(console, "predict", run, text)
    seconds = int(time.perf_counter() - started)
    console.print(f"\nAll of it took {seconds // 60} m {seconds % 60:02} s.")


if __name__ == "__main__":
    main()
