"""The table of what learns, shown before training, on terminals of several widths."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from lorakit.cli.layouts import fitting
from lorakit.cli.report import learning_layouts

BERT = [
    (f"bert.encoder.layer.attention.self.{name}", 24, 294_912 + number)
    for number, name in enumerate(("query", "key", "value"))
]
T5 = [
    (f"{side}.block.layer.SelfAttention.{name}", 24, 294_912 + number)
    for number, (side, name) in enumerate([("encoder", "q"), ("encoder", "k"), ("decoder", "q"), ("decoder", "k")])
]


@pytest.mark.parametrize("summary", [BERT, T5], ids=["bert", "t5"])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_layers_that_learn_are_told_apart_and_their_numbers_are_whole(summary, width):
    wide, *_ = layouts = learning_layouts(summary, 109_482_240)
    shown = fitting(width, layouts)
    number = re.compile(r"\d[\d,.]*%?")
    assert Counter(number.findall("\n".join(wide))) == Counter(number.findall("\n".join(shown)))
    assert max(map(len, shown)) <= width
    names = [line.split()[0] for line in shown[1:] if not line.split()[0][0].isdigit()]
    assert len(set(names) - {"tensors"}) == len(summary)
    assert all(name.endswith(kind[-5:]) for name, (kind, _, _) in zip(names[-len(summary) :], summary, strict=True))


def test_a_training_shows_its_layers_as_the_terminal_allows(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"text": f"The fox has {number} friends.", "label": "ab"[number % 2]} for number in range(12)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    words = ["train", "--model", "tiny-bert", "--data", str(file), "--dry-run", "-o", str(tmp_path / "run")]
    environment = {**os.environ, "COLUMNS": "40"}
    done = subprocess.run(
        [sys.executable, "-m", "lorakit", *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    for name in ("query", "key", "value"):
        assert re.search(rf"attention\.self\.{name}\n +8 +10,240 +0\.40% +41\.0 kB\n", done.stdout)
