"""How the cost of a fine-tuning grows with its rows, their length, the model and the rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.speed import peers, training
from benchmarks.speed.materials import shape
from benchmarks.speed.row import Arm, Growth, Row
from benchmarks.speed.work import Work

SMALL = Work(
    shape=shape("gpt2", 4, 256),
    method="lora",
    rows=64,
    rows_per_step=8,
    learning_rate=2e-4,
    targets=("c_attn",),
    whole=True,
)


def row(name: str, axis: str, values: tuple[int, ...], work: Callable[[int], Work]) -> Row:
    """Return a row with two arms for each value: Trainer and lorakit."""

    def prepare(root: Path) -> None:
        for value in values:
            work(value).prepare(root)

    growth = Growth(axis=axis, values=values)
    peer, own = growth.lines
    arms = []
    for value in values:
        arms.append(Arm(f"{peer} · {value}", partial(peers.trainer, work(value)), peer=True))
        arms.append(Arm(f"{own} · {value}", partial(training.lorakit, work(value), training.DEFAULTS)))
    return Row(
        name=f"growth_{name}",
        title=f"Cost by {axis}",
        work=(
            "A whole fine-tuning beyond imports: model and rows read, one epoch, result on disk. GPT of 4 × 256, LoRA "
            "of rank 8, 64 rows of 96 tokens, but for what grows."
        ),
        arms=tuple(arms),
        prepare=prepare,
        unit="tokens",
        rounds=1,
        growth=growth,
    )


ROWS = (
    row("rows", "rows", (64, 192, 576), lambda rows: replace(SMALL, rows=rows)),
    row("length", "mean length in tokens", (32, 96, 192), lambda mean: replace(SMALL, mean_length=mean)),
    row("model", "layers (width: 64 × layers)", (2, 4, 8), lambda n: replace(SMALL, shape=shape("gpt2", n, 64 * n))),
    row("rank", "rank", (2, 16, 64), lambda rank: replace(SMALL, rank=rank)),
)
