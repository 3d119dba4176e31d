"""All weights of a BERT that classifies."""

from __future__ import annotations

from benchmarks.speed import training
from benchmarks.speed.materials import BERT
from benchmarks.speed.row import Row
from benchmarks.speed.work import Work

WORK = Work(shape=BERT, method="full", rows=96, rows_per_step=16, learning_rate=1e-4)

ROWS = (
    Row(
        name="bert_full",
        title="BERT classification, all weights",
        work="The same model and lengths, every weight learns; one epoch of 96 rows.",
        arms=training.arms(WORK),
        prepare=WORK.prepare,
        unit="tokens",
        aim="at most 0.4 of Trainer's memory, the loss within 0.5 %.",
    ),
)
