"""Text, one prompt alone and sixteen side by side."""

from __future__ import annotations

from functools import partial

from benchmarks.speed.row import TINY, Arm, Row
from benchmarks.speed.writing import lorakit_generate, prepare, prompts, transformers_generate

TOKENS = 16 if TINY else 128
OPTIONS = {
    "lorakit": {},
    "lorakit --dtype bfloat16": {"dtype": "bfloat16"},
    "lorakit --quantize int8": {"quantize": "int8"},
}


def row(count: int, aim: str) -> Row:
    """Return the row of so many prompts side by side."""
    texts = prompts(count, 32)
    told = f"{count} prompt{'s' * (count > 1)}"
    return Row(
        name=f"generation_{count}",
        title=f"Writing text, {told}",
        work=f"GPT-2 small, {told} of 32 tokens, 128 new tokens each, greedy, after a warm-up.",
        arms=(
            Arm("transformers generate", partial(transformers_generate, texts, TOKENS), peer=True),
            *(Arm(name, partial(lorakit_generate, texts, TOKENS, options)) for name, options in OPTIONS.items()),
        ),
        prepare=prepare,
        unit="tokens",
        aim=aim,
    )


ROWS = (
    row(1, "1.3 times with the same text, 1.6 with --dtype bfloat16, 3 with --quantize int8."),
    row(16, "2.2 times."),
)
