"""The rows: one file a comparison, each with its `ROWS`."""

from __future__ import annotations

import importlib

from benchmarks.speed.row import Row

FILES = {
    "gpt_lora": "gpt_lora",
    "gpt_full": "gpt_full",
    "bert_lora": "bert_lora",
    "bert_full": "bert_full",
    "t5_lora": "t5_lora",
    "same_loss_gpt": "same_loss",
    "same_loss_bert": "same_loss",
    "same_loss_t5": "same_loss",
    "switches": "switches",
    "freeze_3_epochs": "freeze",
    "freeze_10_epochs": "freeze",
    "data": "data",
    "generation_1": "generation",
    "generation_16": "generation",
    "first_token": "first_token",
    "merge": "merge",
    "extract": "extract",
    "first_step": "startup",
    "help": "startup",
    "growth_rows": "growth",
    "growth_length": "growth",
    "growth_model": "growth",
    "growth_rank": "growth",
    "llama_gpu": "llama_gpu",
}
"""Name of a row -> its file; in this order they are run and told."""
WHEN_NAMED = ("llama_gpu",)
"""Rows that not every machine can measure: they are run where they are asked for."""


def row_of(name: str) -> Row:
    """Return a row; its file alone is imported."""
    rows: tuple[Row, ...] = importlib.import_module(f"{__name__}.{FILES[name]}").ROWS
    (row,) = (row for row in rows if row.name == name)
    return row
