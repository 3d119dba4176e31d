"""From enter to the first step, and to the first line of help."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from benchmarks.speed.row import Arm, Outcome, Row, Stopwatch
from typer.main import get_command

from lorakit.cli.main import app

ROOT = Path(__file__).parents[3]
IMPORTS = "import torch, transformers, peft, accelerate"


def ended(words: Sequence[str], root: Path) -> Outcome:
    """Run Python with these words to its end."""
    watch = Stopwatch()
    watch.start()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    watch.stop()
    return watch.outcome(1)


def first_step(root: Path) -> Outcome:
    """Run `lorakit train` until it tells of its first step."""
    with tempfile.TemporaryDirectory(dir=root) as place:
        words = ["--model", "tiny-gpt", "--data", str(ROOT / "examples" / "tickets.csv"), "--verbose"]
        watch = Stopwatch()
        watch.start()
        command = [sys.executable, "-m", "lorakit", "train", *words, "-o", f"{place}/run"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if "step 1/" in line:
                    watch.stop()
                    used = psutil.Process(process.pid).cpu_times()
                    process.kill()
                    break
        if process.returncode >= 0:
            raise ValueError(f"the run ended before its first step:\n{''.join(said)}")
        return replace(watch.outcome(1), processor_seconds=used.user + used.system)


def commands() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command of the command line."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    while waiting:
        words, command = waiting.pop(0)
        yield words
        inner = getattr(command, "commands", {})
        waiting += [((*words, name), found) for name, found in inner.items()]


def prepare(root: Path) -> None:
    """Read all libraries from disk once: what comes first would be measured colder than the rest."""
    ended(["-c", IMPORTS], root)


ROWS = (
    Row(
        name="first_step",
        title="From enter to the first step",
        work="`lorakit train` on tiny-gpt and a few rows, from the start of Python until the first step is told.",
        arms=(
            Arm(f'python -c "{IMPORTS}"', partial(ended, ["-c", IMPORTS])),
            Arm("lorakit train, first step", first_step),
        ),
        prepare=prepare,
        aim="within 1.3 times the time of the imports, which is 0.77 times as fast or better.",
    ),
    Row(
        name="help",
        title="Help",
        work="A command line from start to end; the first is Python that does nothing.",
        arms=(
            Arm('python -c "pass"', partial(ended, ["-c", "pass"])),
            *(
                Arm(" ".join(("lorakit", *words, "--help")), partial(ended, ["-m", "lorakit", *words, "--help"]))
                for words in commands()
            ),
            Arm("lorakit --version", partial(ended, ["-m", "lorakit", "--version"])),
        ),
        prepare=prepare,
        aim="under 0.3 seconds each.",
    ),
)
