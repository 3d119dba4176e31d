"""LoRA on a T5."""

from __future__ import annotations

from benchmarks.speed import training
from benchmarks.speed.materials import T5
from benchmarks.speed.row import Row
from benchmarks.speed.work import Work

WORK = Work(shape=T5, method="lora", rows=64, rows_per_step=16, learning_rate=1e-3, targets=("q", "v"))

ROWS = (
    Row(
        name="t5_lora",
        title="T5, LoRA",
        work=(
            "T5 small (6 + 6 × 512), LoRA of rank 8 on q and v, 16 rows a step, sources around 96 and targets around "
            "40 tokens; one epoch of 64 rows."
        ),
        arms=training.arms(WORK),
        prepare=WORK.prepare,
        unit="tokens",
        aim="5 times Trainer in at most 0.4 of its memory, the loss within 0.5 %.",
    ),
)
