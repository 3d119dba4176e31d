"""LoRA on a BERT that classifies."""

from __future__ import annotations

from benchmarks.speed import training
from benchmarks.speed.materials import BERT
from benchmarks.speed.row import Row
from benchmarks.speed.work import Work

WORK = Work(
    shape=BERT, method="lora", rows=128, rows_per_step=16, learning_rate=1e-3, targets=("query", "value")
)  # fmt: skip

ROWS = (
    Row(
        name="bert_lora",
        title="BERT classification, LoRA",
        work=(
            "BERT of 6 × 384, 8 classes, LoRA of rank 8 on query and value, 16 rows a step, lengths around 96 tokens; "
            "one epoch of 128 rows."
        ),
        arms=training.arms(WORK),
        prepare=WORK.prepare,
        unit="tokens",
        aim="6 times Trainer in at most 0.4 of its memory, the loss within 0.5 %.",
    ),
)
