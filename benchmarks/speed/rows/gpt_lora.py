"""LoRA on a GPT: the headline."""

from __future__ import annotations

from functools import partial

from benchmarks.speed import peers, training
from benchmarks.speed.materials import GPT
from benchmarks.speed.row import Arm, Row
from benchmarks.speed.work import Work

WORK = Work(shape=GPT, method="lora", rows=32, rows_per_step=8, learning_rate=2e-3, targets=("c_attn",))
TRAINER, GROUPED, *LORAKIT = training.arms(WORK)

ROWS = (
    Row(
        name="gpt_lora",
        title="GPT, LoRA",
        work=(
            "GPT-2 small (12 × 768, 16,384 words), LoRA of rank 8 on c_attn, 8 rows a step, lengths around 96 tokens, "
            "half of each row learned; one epoch of 32 rows."
        ),
        arms=(
            TRAINER,
            GROUPED,
            Arm("TRL SFTTrainer, packing, tuned", partial(peers.packing, WORK), peer=True),
            *LORAKIT,
        ),
        prepare=WORK.prepare,
        unit="tokens",
        aim="8 times Trainer (5 in float32) in at most 0.25 of its memory, the loss within 0.5 %.",
    ),
)
