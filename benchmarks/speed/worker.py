"""The process of one arm: do the work, print what it took as JSON. `harness.py` starts it.

python -m benchmarks.speed.worker ROW ARM FOLDER        # an empty ARM prepares models and rows
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.speed.rows import row_of


def main(name: str, arm_name: str, folder: Path) -> None:
    """Run what the command line names."""
    # What libraries print on the way goes to stderr.
    printed = os.dup(1)
    os.dup2(2, 1)
    row = row_of(name)
    if not arm_name:
        row.prepare(folder)
        outcome = {}
    else:
        (arm,) = (arm for arm in row.arms if arm.name == arm_name)
        outcome = asdict(arm.run(folder))
    with os.fdopen(printed, "w") as out:
        json.dump(outcome, out)
    sys.stderr.flush()
    # Threads of torch can abort while Python ends.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
