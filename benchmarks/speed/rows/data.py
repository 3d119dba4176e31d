"""From a file of rows to tokens that are ready to be trained on."""

from __future__ import annotations

import json
import os
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed import materials
from benchmarks.speed.row import TINY, Arm, Outcome, Row, Stopwatch

COUNT = 8_000 if TINY else 100_000
SHIPPED = Path(__file__).parents[3] / "src" / "lorakit"
MODEL = SHIPPED / "builtin" / "tiny-gpt"


def rows(root: Path) -> Path:
    """Return a file of prompts and answers: those of the quickstart, their words in other orders."""

    def write(folder: Path) -> None:
        draw = random.Random(0)
        lines = (SHIPPED / "recipes" / "quickstart-train.jsonl").read_text(encoding="utf-8").splitlines()
        pool = [json.loads(line) for line in lines]
        with (folder / "train.jsonl").open("w", encoding="utf-8") as out:
            for _ in range(COUNT):
                fields = {name: text.split() for name, text in draw.choice(pool).items()}
                for found in fields.values():
                    draw.shuffle(found)
                out.write(json.dumps({name: " ".join(found) for name, found in fields.items()}) + "\n")

    return materials.made(root / f"texts-{COUNT}", write) / "train.jsonl"


def prepare(root: Path) -> None:
    """Write the rows."""
    rows(root)


def datasets_map(first: bool, root: Path) -> Outcome:
    """Read and encode with `datasets.map`, batched; its files are kept between starts."""
    import datasets
    import transformers
    from datasets.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    cache = root / "cache-of-datasets"
    if first:
        shutil.rmtree(cache, ignore_errors=True)
    cut = transformers.AutoTokenizer.from_pretrained(MODEL)
    end = cut.eos_token_id

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        asked, answered = cut(batch["prompt"])["input_ids"], cut(batch["completion"])["input_ids"]
        pairs = [(prompt, [*answer, end]) for prompt, answer in zip(asked, answered, strict=True)]
        return {
            "input_ids": [prompt + answer for prompt, answer in pairs],
            "labels": [[-100] * len(prompt) + answer for prompt, answer in pairs],
        }

    watch = Stopwatch()
    watch.start()
    found = datasets.load_dataset("json", data_files=str(rows(root)), split="train", cache_dir=str(cache))
    found.map(encode, batched=True, remove_columns=["prompt", "completion"])
    watch.stop()
    return watch.outcome(COUNT)


def lorakit(first: bool, root: Path) -> Outcome:
    """Read, check, split and encode with lorakit, as `train --dry-run` does, without the model."""
    from lorakit.recipe import load
    from lorakit.workflows.preparing import prepare_rows

    values = {"model.name": "tiny-gpt", "data.train": str(rows(root)), "data.eval_rows": "100"}
    recipe = load(None, [(key, value, "benchmark") for key, value in values.items()]).recipe
    _import_beneath()
    if first:
        shutil.rmtree(os.environ["LORAKIT_CACHE"], ignore_errors=True)
    watch = Stopwatch()
    watch.start()
    prepared: Any = prepare_rows(recipe)
    watch.stop()
    if not prepared.report.rows:
        raise ValueError("no row was prepared")
    return watch.outcome(COUNT)


def _import_beneath() -> None:
    """Import what preparation imports on its way, so that its time is not counted."""
    import torch  # noqa: F401
    import transformers.models.auto.tokenization_auto  # noqa: F401


ROWS = (
    Row(
        name="data",
        title="Preparing 100,000 rows",
        work=(
            "100,000 prompts and answers in a JSON file of about 20 MB, tokenizer of tiny-gpt, imports left out; a "
            "second start finds what the first one kept."
        ),
        arms=(
            Arm("datasets.map, first start", partial(datasets_map, True), peer=True),
            Arm("lorakit, first start", partial(lorakit, True)),
            Arm("datasets.map, second start", partial(datasets_map, False), peer=True),
            Arm("lorakit, second start", partial(lorakit, False)),
        ),
        prepare=prepare,
        unit="rows",
        aim="first start at least as fast as datasets.map, second start under 2 seconds.",
    ),
)
