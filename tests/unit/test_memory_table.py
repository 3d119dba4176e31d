"""The memory table of docs/scaling.md: counted as by hand, and printed as it stands there."""

from pathlib import Path

import pytest
from benchmarks import memory_table

from lorakit.checkpoints.finding import find

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
V, R, KV = 128_256, 8, 8 * 128
"""Rows of the vocabulary, rank, and output features of keys and of values in Llama 3 of 8 and 70 billion weights."""


@pytest.mark.parametrize(
    ("name", "D", "I", "L"), [("Llama 3, 8 B", 4096, 14336, 32), ("Llama 3, 70 B", 8192, 28672, 80)]
)
def test_weights_of_llama_are_counted_as_by_hand(name, D, I, L):  # noqa: E741
    """D is the hidden width, I the inner one, L the number of blocks."""
    matrices = 2 * D * D + 2 * D * KV + 3 * D * I
    block, pairs = matrices + 2 * D, R * (2 * 2 * D + 2 * (D + KV) + 3 * (D + I))
    total = 2 * V * D + L * block + D
    config = memory_table.configs()[name]
    full, lora, qlora = (memory_table.need(config, method) for method in ("full", "lora", "qlora"))
    assert full.parameters == lora.parameters == total
    assert (full.weights, full.learning, full.group) == (4 * total, 12 * total, max(4 * V * D, 4 * block))
    assert lora.learning == qlora.learning == 12 * L * pairs
    # Frozen matrices in bfloat16, the output layer too; embeddings, norms and what learns in float32.
    wide = V * D + L * 2 * D + D + L * pairs
    assert lora.weights == 2 * (V * D + L * matrices) + 4 * wide
    assert qlora.weights == pytest.approx(2 * V * D + L * matrices * 4.127 / 8 + 4 * wide, rel=1e-4)
    assert full.each(8) == (full.weights + full.learning) / 8 + 2 * full.group + full.recomputed


def test_the_table_of_the_page_is_what_the_command_prints():
    configs = memory_table.configs()
    text = PAGE.read_text(encoding="utf-8")
    told = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and line.split(" | ")[1] in ("full", "lora", "qlora")
    ]
    assert len(told) == 3 * len(configs)
    for name in ("tiny-gpt", "Llama 3, 70 B"):
        assert [line for line in told if line.startswith(f"| {name} |")] == memory_table.rows(name, configs[name])


def test_the_smallest_is_the_checkpoint_that_is_shipped():
    stored = sum(weight.numel() for weight in find("tiny-gpt").load().parameters())
    assert memory_table.need(memory_table.configs()["tiny-gpt"], "full").parameters == stored
