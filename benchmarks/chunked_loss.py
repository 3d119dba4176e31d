"""Time and memory of the loss over a large vocabulary, all scores together and in parts: forward and backward.

``python -m benchmarks.chunked_loss plain|parts [bfloat16|float32] [positions]`` prints the processor seconds of the
best of four, and by how much the process grew.
"""

from __future__ import annotations

import resource
import sys
import time

import torch
from torch import nn
from torch.nn import functional

from lorakit.fast.logits import loss_in_parts

VOCABULARY, FEATURES = 50257, 768


class Output(nn.Module):
    """GPT-2's output layer, frozen as beside LoRA."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, VOCABULARY, bias=False).requires_grad_(False)

    def get_output_embeddings(self) -> nn.Module:
        return self.layer


def main(way: str, dtype: str = "bfloat16", positions: str = "2048") -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Output()
    hidden_LD = torch.randn(int(positions), FEATURES, requires_grad=True)
    targets_L = torch.randint(0, VOCABULARY, (int(positions),))

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            if way == "plain":
                loss = functional.cross_entropy(model.layer(hidden_LD).float(), targets_L, reduction="sum")
            else:
                loss = loss_in_parts(model, hidden_LD, targets_L)
        torch.autograd.grad(loss, hidden_LD)

    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(4):
        begun = time.process_time()
        once()
        times.append(time.process_time() - begun)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{way} {dtype} {positions} positions: {min(times):.2f} s, {grown / 1e3:,.0f} MB more")


if __name__ == "__main__":
    main(*sys.argv[1:])
