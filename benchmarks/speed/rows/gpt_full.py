"""All weights of a GPT."""

from __future__ import annotations

from benchmarks.speed import training
from benchmarks.speed.materials import GPT
from benchmarks.speed.row import Row
from benchmarks.speed.work import Work

WORK = Work(shape=GPT, method="full", rows=24, rows_per_step=8, learning_rate=5e-5)

ROWS = (
    Row(
        name="gpt_full",
        title="GPT, all weights",
        work="The same model and lengths, every weight learns; one epoch of 24 rows.",
        arms=training.arms(WORK),
        prepare=WORK.prepare,
        unit="tokens",
        aim="at most 0.4 of Trainer's memory, the loss within 0.5 %.",
    ),
)
