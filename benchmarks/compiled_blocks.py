"""Time of training steps with the blocks compiled and plain: what `speed.compile` costs and gains.

``python -m benchmarks.compiled_blocks [float32|bfloat16]`` trains LoRA beside a GPT of 4 blocks, 256 wide, on packed
rows of about 900 tokens, on one thread of a processor, and prints processor seconds: what compiling took, and of a step
the median of six with each, by turns. It needs a compiler for C++. On a GPU: ``make bench ROWS=llama_gpu``.
"""

from __future__ import annotations

import random
import statistics
import sys
import time

import torch
from torch import Tensor, nn

from lorakit.fast import compiled, shapes, varlen
from lorakit.training import precision

VOCABULARY = 4096


def model() -> tuple[nn.Module, list[nn.Module]]:
    """Return a GPT beside which LoRA learns, and its blocks."""
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=256, n_layer=4, n_head=4, n_positions=512, **drops)
    base = GPT2LMHeadModel._from_config(config, attn_implementation=varlen.NAME)
    wanted = LoraConfig(r=8, target_modules=["c_attn"], fan_in_fan_out=True)
    return get_peft_model(base, wanted).train(), list(base.transformer.h)


def rows(seed: int) -> tuple[int, ...]:
    """Return the lengths of a packed row."""
    draw = random.Random(seed)
    found: list[int] = []
    while sum(found) < 800:
        found.append(min(500, max(8, round(draw.lognormvariate(4.2, 0.8)))))
    return tuple(found)


def slopes(adapted: nn.Module, lengths: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Return the gradients of a step."""
    torch.manual_seed(0)
    ids_1T = torch.randint(0, VOCABULARY, (1, sum(lengths)))
    row = shapes.rounded_row({"input_ids": ids_1T, "position_ids": varlen.positions(lengths)[None]}, lengths)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits_TV = adapted(**row, use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits_TV.float(), row["input_ids"][0])
    return list(torch.autograd.grad(loss, [weight for weight in adapted.parameters() if weight.requires_grad]))


def main(name: str = "float32") -> None:
    """Compile one of two equal models, and take steps with both by turns."""
    torch.set_num_threads(1)
    dtype = getattr(torch, name)
    arms = {"plain": model(), "compiled": model()}
    if dtype == torch.bfloat16:
        for adapted, _ in arms.values():
            precision.lower_frozen(adapted)
    adapted, blocks = arms["compiled"]
    begun = time.process_time()
    reason = compiled.take(blocks, lambda: slopes(adapted, rows(0), dtype), dtype)
    print(f"{name}: compiled in {time.process_time() - begun:.0f} processor seconds {reason}")
    taken: dict[str, list[float]] = {arm: [] for arm in arms}
    for seed in range(7):
        for arm, (adapted, _) in arms.items():
            begun = time.process_time()
            slopes(adapted, rows(seed), dtype)
            taken[arm].append(time.process_time() - begun)
    plain, faster = (statistics.median(found[1:]) for found in taken.values())
    print(f"a step: plain {plain:.3f}, compiled {faster:.3f} processor seconds: {plain / faster:.2f} times as fast")


if __name__ == "__main__":
    main(*sys.argv[1:])
