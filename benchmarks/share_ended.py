"""Print what a run came to, and the share of its answers that ended at the end-of-sequence token.

python -m benchmarks.share_ended runs/e2e answers.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(run: Path, answers: Path) -> None:
    """Print the numbers, one a line."""
    metrics = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    reasons = [json.loads(line)["finish_reason"] for line in answers.read_text(encoding="utf-8").splitlines()]
    ended = reasons.count("eos")
    print(f"evaluation loss before   {metrics['evaluation_loss_before']:.3f}")
    print(f"evaluation loss after    {metrics['evaluation_loss']:.3f}")
    print(f"answers that end at EOS  {ended} of {len(reasons)} ({ended / len(reasons):.1%})")
    print(f"seconds of training      {metrics['seconds']:.0f}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
