"""What `make quickstart` runs: train an adapter, merge it, let base, adapter and merged model answer, and compare.

Each step is a command of `lorakit`, printed before it runs, so that a reader can type it again.
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
import textwrap
import time
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RUN = Path("runs/quickstart")
MERGED = Path("runs/quickstart-merged")
ANSWERS = Path("runs/quickstart-answers")
LONGEST = 80
"""Tokens an answer may have; the longest of the evaluation rows has fewer."""


def main() -> None:
    """Run the commands and print what came of them."""
    started = time.perf_counter()
    console = Console(highlight=False)
    lorakit(console, "train", "quickstart", "-o", RUN, "--force")
    lorakit(console, "merge", RUN, "-o", MERGED, "--dtype", "float32", "--force")
    ANSWERS.mkdir(parents=True, exist_ok=True)
    rows = evaluation_rows()
    prompts = write_prompts(rows, "prompts.jsonl", "")
    # The base knows nothing of the adapter's framing: its prompt ends with the separator that training put there.
    framed = write_prompts(rows, "prompts-for-base.jsonl", "\n")
    answers = {
        "base": ask(console, "tiny-gpt", framed, "base"),
        "adapter": ask(console, RUN, prompts, "adapter"),
        "merged": ask(console, MERGED, prompts, "merged"),
    }
    show(console, rows, answers, time.perf_counter() - started)


def lorakit(console: Console, *arguments: object) -> None:
    """Print one command and run it; leave with its exit code when it fails."""
    words = [str(argument) for argument in arguments]
    console.print(f"\n$ lorakit {shlex.join(words)}", style="bold", markup=False, soft_wrap=True)
    finished = subprocess.run([sys.executable, "-m", "lorakit", *words], check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def evaluation_rows() -> list[dict[str, str]]:
    """Return the shipped evaluation rows."""
    file = resources.files("lorakit") / "recipes" / "quickstart-eval.jsonl"
    text = file.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def write_prompts(rows: list[dict[str, str]], name: str, ending: str) -> Path:
    """Write the prompts as JSONL and return the file."""
    path = ANSWERS / name
    lines = (json.dumps({"prompt": row["prompt"] + ending}, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def ask(console: Console, target: object, prompts: Path, name: str) -> list[dict[str, Any]]:
    """Let a model answer every prompt."""
    output = ANSWERS / f"{name}.jsonl"
    options = ("--max-new-tokens", LONGEST, "--force", "--quiet")
    lorakit(console, "generate", target, "--input", prompts, "--output", output, *options)
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def facts(prompt: str) -> list[str]:
    """Return the values of a prompt: ``name: Blue Oak | kind: bakery`` gives ``Blue Oak`` and ``bakery``."""
    return [fact.split(": ", 1)[1] for fact in prompt.strip().split(" | ")]


def share_told(rows: list[dict[str, str]], answers: list[dict[str, Any]]) -> float:
    """Return the share of all facts of the prompts whose value stands word for word in the answer."""
    told = [
        value in answer["text"] for row, answer in zip(rows, answers, strict=True) for value in facts(row["prompt"])
    ]
    return sum(told) / len(told)


def show(
    console: Console, rows: list[dict[str, str]], answers: dict[str, list[dict[str, Any]]], seconds: float
) -> None:
    """Print the comparison, one answer of each, and the next command."""
    manifest = json.loads((RUN / "manifest.json").read_text(encoding="utf-8"))
    metrics = manifest["metrics"]
    base = resources.files("lorakit") / "builtin" / "tiny-gpt" / "model.safetensors"
    sizes = (Path(str(base)), RUN / "adapter_model.safetensors", MERGED / "model.safetensors")
    table = Table(box=None, padding=(0, 3), header_style="bold cyan")
    table.add_column(f"on {len(rows)} rows it has never seen")
    for name in answers:
        table.add_column(name, justify="right")
    table.add_row(
        "evaluation loss", f"{metrics['evaluation_loss_before']:.3f}", f"{metrics['evaluation_loss']:.3f}", ""
    )
    table.add_row("facts told", *(f"{share_told(rows, found):.1%}" for found in answers.values()))
    stopped = {name: sum(one["finish_reason"] == "eos" for one in found) for name, found in answers.items()}
    table.add_row("answers that end at EOS", *(f"{count / len(rows):.1%}" for count in stopped.values()))
    same = sum(one["text"] == two["text"] for one, two in zip(answers["adapter"], answers["merged"], strict=True))
    table.add_row("same text as the adapter", "", "", f"{same} of {len(rows)}")
    table.add_row("size of the weights", *(f"{path.stat().st_size / 1e6:.2f} MB" for path in sizes))
    console.print()
    console.print(table)
    trained, total = trained_weights()
    console.print(f"\nThe adapter trains {trained:,} of {total:,} weights ({trained / total:.1%}).")
    shown = next(number for number, row in enumerate(rows) if row["prompt"].startswith("name"))
    console.print(f"\nprompt    {rows[shown]['prompt']}", markup=False, soft_wrap=True)
    for name in ("base", "adapter"):
        text = textwrap.shorten(answers[name][shown]["text"], 160, placeholder=" …")
        console.print(f"{name:<9} {text}", markup=False, soft_wrap=True)
    console.print(f"\nAll of it took {int(seconds) // 60} m {int(seconds) % 60:02} s. Ask it something yourself:")
    command = shlex.join([".venv/bin/lorakit", "generate", str(RUN), rows[shown]["prompt"]])
    console.print(f"  {command}", style="cyan", markup=False, soft_wrap=True)


def trained_weights() -> tuple[int, int]:
    """Return how many weights the adapter holds, and how many the merged model has."""
    from safetensors import safe_open

    counts = []
    for path in (RUN / "adapter_model.safetensors", MERGED / "model.safetensors"):
        with safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        counts.append(sum(math.prod(shape) for shape in shapes))
    return counts[0], counts[1]


if __name__ == "__main__":
    main()
