"""How long rows take to be made ready, beside `datasets.map` with the same tokenizer.

python -m benchmarks.preparation [--rows 100000] [--rounds 3]      # all arms by turns, a table
python -m benchmarks.preparation --arm again --folder FOLDER      # one arm, its numbers as JSON

Arms: `map` reads and tokenizes alone; `first` is all that `lorakit train` does with rows before the model is loaded
(reading, checking, parting, encoding, reporting, keeping); `again` the same in a later start. Processor seconds of one
thread, imports left out, and the peak of memory above them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

ARMS = ("map", "first", "again")


def main() -> None:
    """Run all arms by turns, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(measured(given.arm, given.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", given.rows)
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
        for number in range(given.rounds):
            environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
            environment["LORAKIT_CACHE"] = str(folder / f"cache {number}")
            for arm, results in found.items():
                command = [sys.executable, "-m", "benchmarks.preparation", "--arm", arm, "--folder", name]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                results.append(json.loads(done.stdout))
        for arm, results in found.items():
            seconds = statistics.median(one["seconds"] for one in results)
            print(f"{arm:6} {seconds:7.2f} s  {statistics.median(one['megabytes'] for one in results):6.0f} MB")


def write_rows(file: Path, count: int) -> None:
    """Write prompts and answers of 5 to 20 words each, English and Korean, drawn from the shipped rows."""
    shipped = resources.files("lorakit") / "recipes" / "quickstart-train.jsonl"
    lines = shipped.read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in lines for value in json.loads(line).values() for word in value.split()})
    draw = random.Random(0)
    with file.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            fields = {role: " ".join(draw.choices(words, k=draw.randint(5, 20))) for role in ("prompt", "completion")}
            stream.write(json.dumps(fields, ensure_ascii=False) + "\n")


def measured(arm: str, folder: Path) -> dict[str, float]:
    """Prepare the rows of a folder, and return seconds of a processor and megabytes above those of the imports."""
    work = _map(folder) if arm == "map" else _prepare(folder)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    work()
    seconds = time.process_time() - started
    return {"seconds": seconds, "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def _map(folder: Path) -> Any:
    import datasets

    from lorakit.checkpoints.finding import find

    datasets.disable_progress_bars()
    tokenizer = find("tiny-gpt").tokenizer
    tokenizer("warm")
    end = [tokenizer.eos_token_id]

    def encoded(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        pairs = list(zip(tokenizer(rows["prompt"]).input_ids, tokenizer(rows["completion"]).input_ids, strict=True))
        labels = [[-100] * len(prompt) + answer + end for prompt, answer in pairs]
        return {"input_ids": [prompt + answer + end for prompt, answer in pairs], "labels": labels}

    def work() -> None:
        with tempfile.TemporaryDirectory() as cache:
            rows = datasets.load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=cache)
            rows.map(encoded, batched=True, remove_columns=rows.column_names)

    return work


def _prepare(folder: Path) -> Any:
    import transformers.models.auto.configuration_auto  # noqa: F401

    import lorakit.objectives.causal_lm  # noqa: F401
    from lorakit.checkpoints.finding import find
    from lorakit.recipe import load
    from lorakit.workflows.preparing import prepare_rows

    find("tiny-gpt").tokenizer("warm")
    given = {"model.name": "tiny-gpt", "data.train": str(folder / "rows.jsonl")}
    recipe = load(None, [(key, value, "--set") for key, value in given.items()]).recipe

    def work() -> None:
        rows = prepare_rows(recipe)
        rows.plan.total()
        rows.stamps()

    return work


if __name__ == "__main__":
    main()
