"""Frozen blocks, computed once."""

from __future__ import annotations

from functools import partial

from benchmarks.speed import training
from benchmarks.speed.materials import GPT
from benchmarks.speed.row import TINY, Arm, Row
from benchmarks.speed.work import Work

BLOCKS = {"method.blocks": "1" if TINY else "10"}
WITHOUT = {**BLOCKS, "speed.frontier": "false"}


def row(epochs: int, aim: str) -> Row:
    """Return the row of so many epochs."""
    work = Work(shape=GPT, method="freeze", rows=32, rows_per_step=8, learning_rate=1e-4, epochs=epochs)
    return Row(
        name=f"freeze_{epochs}_epochs",
        title=f"Frozen blocks computed once, {epochs} epochs",
        work=(
            f"GPT-2 small, 10 of 12 blocks frozen, {epochs} epochs of 32 rows, all steps timed; with speed.frontier "
            "(as lorakit comes) against without."
        ),
        arms=(
            Arm("lorakit speed.frontier=false", partial(training.lorakit, work, WITHOUT)),
            Arm("lorakit", partial(training.lorakit, work, BLOCKS)),
        ),
        prepare=work.prepare,
        unit="tokens",
        aim=aim,
    )


ROWS = (
    row(3, "at most 0.65 of the time, which is 1.54 times as fast, and the same weights."),
    row(10, "at most half of the time, and the same weights."),
)
