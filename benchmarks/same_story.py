"""Compare a greedy story with the first sample of the author's page; leave with 1 where they differ.

python -m benchmarks.same_story story.txt stories260K.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def main(written: Path, page: Path) -> None:
    """Print how far the two agree."""
    block = re.search(r"^\$ ./run .* -t 0\.0\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    if block is None:
        sys.exit(f"{page} shows no greedy sample")
    story, published = written.read_text(encoding="utf-8").strip(), block[1].strip()
    same = next((at for at, (one, other) in enumerate(zip(story, published, strict=False)) if one != other), None)
    if same is None and len(story) == len(published):
        print(f"all {len(published)} characters of the published story are the same")
        return
    at = same if same is not None else min(len(story), len(published))
    sys.exit(f"the stories part at character {at}: {story[at : at + 40]!r} here, {published[at : at + 40]!r} published")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
