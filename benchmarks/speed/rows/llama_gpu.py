"""LoRA on a Llama of 1 billion weights, on one GPU."""

from __future__ import annotations

from functools import partial

from benchmarks.speed import on_gpu
from benchmarks.speed.materials import shape
from benchmarks.speed.row import TINY, Arm, Row
from benchmarks.speed.work import Work

WORK = Work(
    shape=shape("llama", 16, 2048),
    method="lora",
    rows=16 if TINY else 2048,
    rows_per_step=8,
    learning_rate=2e-4,
    targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    mean_length=512,
)
PEER = "Trainer + PEFT, bfloat16"

ROWS = (
    Row(
        name="llama_gpu",
        title="Llama of 1 billion weights, LoRA, on one GPU",
        work=(
            "Llama (16 × 2048, 32 heads on 8, 16,384 words), LoRA of rank 8 on all products of the blocks, 8 rows a "
            "step, lengths around 512 tokens, half of each row learned; one epoch of 2,048 rows. Memory is the GPU's."
        ),
        arms=(
            Arm(f"{PEER}, flash attention", partial(on_gpu.trainer, WORK, "flash_attention_2"), peer=True),
            Arm(f"{PEER}, sdpa", partial(on_gpu.trainer, WORK, "sdpa"), peer=True),
            Arm("lorakit", partial(on_gpu.lorakit, WORK, {})),
            Arm("lorakit speed.compile=true", partial(on_gpu.lorakit, WORK, {"speed.compile": "true"})),
            Arm("lorakit speed.compile=false", partial(on_gpu.lorakit, WORK, {"speed.compile": "false"})),
        ),
        prepare=partial(on_gpu.prepare, WORK),
        unit="tokens",
        aim="1.5 times Trainer with flash attention, and 50 % of the matrix rate.",
        rounds=3,
    ),
)
