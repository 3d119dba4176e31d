"""The same loss: every step takes all rows, so that their order plays no part."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.speed import training
from benchmarks.speed.materials import BERT, GPT, T5
from benchmarks.speed.row import Row
from benchmarks.speed.work import Work

STEPS = 10


def row(name: str, called: str, work: Work) -> Row:
    """Return the row of a fine-tuning."""
    peer, _, *own = training.arms(work)
    return Row(
        name=f"same_loss_{name}",
        title=f"The same loss, {called}",
        work=f"LoRA of rank 8 on {' and '.join(work.targets)}, {STEPS} steps, each on all {work.rows} rows.",
        arms=(peer, *own),
        prepare=work.prepare,
        unit="tokens",
        aim="the loss within 0.5 %.",
        rounds=1,
    )


GPT_WORK = Work(
    shape=GPT, rows=8, rows_per_step=8, learning_rate=2e-3, targets=("c_attn",), method="lora", epochs=STEPS
)
BERT_WORK = replace(GPT_WORK, shape=BERT, rows=32, rows_per_step=32, learning_rate=1e-3, targets=("query", "value"))
T5_WORK = replace(BERT_WORK, shape=T5, rows=16, rows_per_step=16, targets=("q", "v"))

ROWS = (row("gpt", "GPT", GPT_WORK), row("bert", "BERT classification", BERT_WORK), row("t5", "T5", T5_WORK))
