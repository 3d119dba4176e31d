"""What each fast path adds: lorakit as it comes against lorakit without it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.speed import training
from benchmarks.speed.row import Arm, Row
from benchmarks.speed.rows import gpt_lora

from lorakit.fast.settings import SpeedSettings

WORK = replace(gpt_lora.WORK, rows=16)
ELSEWHERE = ("frontier", "tokens", "products")
"""Switches of what this work has no use for, and the rows `freeze` and `data` measure; and one that takes float32."""
SWITCHES = [
    f"speed.{name}"
    for name, field in SpeedSettings.model_fields.items()
    if field.annotation is bool and name not in ELSEWHERE
]
WITHOUT_PRODUCTS = {**training.EXACT, "speed.products": "false"}

ROWS = (
    Row(
        name="switches",
        title="What each fast path adds",
        work="GPT, LoRA as above on 16 rows, one fast path switched off at a time; below 1: the path is faster.",
        arms=(
            Arm("lorakit", partial(training.lorakit, WORK, training.DEFAULTS)),
            *(Arm(f"lorakit {name}=false", partial(training.lorakit, WORK, {name: "false"})) for name in SWITCHES),
            Arm("lorakit train.dtype=float32", partial(training.lorakit, WORK, training.EXACT)),
            Arm("the same, speed.products=false", partial(training.lorakit, WORK, WITHOUT_PRODUCTS)),
        ),
        prepare=WORK.prepare,
        unit="tokens",
        rounds=3,
    ),
)
