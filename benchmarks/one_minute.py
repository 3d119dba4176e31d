"""A minute of pretraining from nothing: each architecture on each text, tokenizer and all, and how far its loss falls.

python -m benchmarks.one_minute WORK NAME=TEXT [NAME=TEXT]...
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 60
SHAPE = ("--vocab-size", "2000", "--layers", "2", "--hidden", "128", "--heads", "4", "--positions", "128")
OPTIMIZERS = {
    "bert": "{name: adamw, learning_rate: 2.0e-3}",
    "gpt2": "{name: adamw, learning_rate: 3.0e-3}",
    "llama": "{name: adamw, learning_rate: 3.0e-3}",
    "t5": "{name: adafactor, learning_rate: 2.0e-2}",
}
"""Architecture -> section `optim` of its recipe."""


def main(work: Path, texts: dict[str, Path]) -> None:
    """Print a row of a table for each architecture and text."""
    print("| `lorakit new` | text | steps in a minute | held-out loss before | after |")
    print("| --- | --- | --- | --- | --- |")
    for architecture in OPTIMIZERS:
        for name, text in texts.items():
            steps, before, after = learned(architecture, text, work / f"{architecture}-{name}")
            print(f"| `{architecture}` | {name} | {steps:,} | {before:.2f} | {after:.2f} |", flush=True)


def learned(architecture: str, text: Path, folder: Path) -> tuple[int, float, float]:
    """Make a checkpoint, train it for a minute; return steps, and the loss in nats a prediction before and after."""
    new, run = folder / "new", folder / "run"
    lorakit("new", architecture, "--tokenizer-from", str(text), *SHAPE, "-o", str(new), "--force")
    changes = {
        "data.eval": "0.1",
        "data.max_length": "128",
        "optim": OPTIMIZERS[architecture],
        "train.tokens_per_step": "1024",
        "train.epochs": "1000",
        "train.evaluate_every": "20",
        "train.sample_answers": "0",
        "train.dropout": "0",
    }
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    lorakit(
        "train", "--model", str(new), "--data", str(text), "--method", "full", *words, "-o", str(run), "--force",
        seconds=SECONDS,
    )  # fmt: skip
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [event["loss"] for event in told if event["kind"] == "evaluation"]
    return max(event["step"] for event in told if event["kind"] == "step"), losses[0], losses[-1]


def lorakit(*words: str, seconds: float | None = None) -> None:
    """Run a command; after `seconds` it is asked to stop, as by Ctrl-C."""
    process = subprocess.Popen([sys.executable, "-m", "lorakit", *words], stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.communicate()
        return
    if process.returncode:
        sys.exit(said)


if __name__ == "__main__":
    pairs = dict(argument.split("=", 1) for argument in sys.argv[2:])
    main(Path(sys.argv[1]), {name: Path(text) for name, text in pairs.items()})
