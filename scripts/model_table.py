"""Write the table of model types, objectives and methods into both readmes, everything in it proved on the way.

    python scripts/model_table.py

Takes a minute or two. `tests/unit/test_model_types.py` holds the readmes to it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- model types: scripts/model_table.py -->", "<!-- end of model types -->"


def main() -> None:
    """Prove each type and replace the table between the marks."""
    sys.path.insert(0, str(ROOT / "tests"))
    from model_trials import HEADING, row
    from model_types import SHAPES

    lines = list(HEADING)
    for model_type in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(model_type, Path(folder)))
        print(lines[-1], file=sys.stderr, flush=True)
    table = "\n".join([BEGIN, "", *lines, "", END])
    for readme in (ROOT / "README.md", ROOT / "README.ko.md"):
        text = readme.read_text(encoding="utf-8")
        if BEGIN not in text:
            sys.exit(f"{readme.name} has no line {BEGIN!r}")
        readme.write_text(re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: table, text, flags=re.S), "utf-8")


if __name__ == "__main__":
    main()
