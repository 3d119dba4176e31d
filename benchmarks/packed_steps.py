"""Speed and memory of packed training steps of the tiny model in bfloat16, each fast path against its plain twin.

python -m benchmarks.packed_steps                            # as lorakit trains
python -m benchmarks.packed_steps --every-length             # sizes not rounded up (fast/shapes.py)
python -m benchmarks.packed_steps --bfloat16-attention       # attention in the precision of the products
OMP_WAIT_POLICY=ACTIVE python -m benchmarks.packed_steps     # waiting threads spin; run it beside a busy process
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch.nn.functional import cross_entropy

from lorakit.checkpoints.finding import find
from lorakit.fast import shapes, varlen


def main() -> None:
    """Take steps over random rows and print tokens a second and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--every-length", action="store_true")
    parser.add_argument("--bfloat16-attention", action="store_true")
    options = parser.parse_args()
    if options.every_length:
        shapes.GRAIN = 1
    if options.bfloat16_attention:
        widened = varlen._within
        varlen._within = lambda query, key, value, how: widened(
            query.bfloat16(), key.bfloat16(), value.bfloat16(), how
        ).float()
    model = find("tiny-gpt").load("float32", varlen.NAME, 0.0).train()
    draw = random.Random(0)
    for _ in range(3):
        step(model, draw)
    started = time.perf_counter()
    tokens = sum(step(model, draw) for _ in range(options.steps))
    speed = tokens / (time.perf_counter() - started)
    print(f"{speed:,.0f} tokens/s  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def step(model: torch.nn.Module, draw: random.Random) -> int:
    """Take one forward and backward pass over about 1,900 tokens; return their number."""
    lengths: list[int] = []
    while sum(lengths) < 1800:
        lengths.append(draw.randint(30, 256))
    ids_1T = torch.randint(0, 4096, (1, sum(lengths)))
    inputs = {"input_ids": ids_1T, "position_ids": varlen.positions(tuple(lengths))[None]}
    row = shapes.rounded_row(inputs, tuple(lengths))
    with torch.autocast("cpu", torch.bfloat16):
        logits_TV = model(**row, use_cache=False).logits[0]
    cross_entropy(logits_TV.float(), row["input_ids"][0], reduction="sum").backward()
    model.zero_grad(set_to_none=True)
    return sum(lengths)


if __name__ == "__main__":
    main()
