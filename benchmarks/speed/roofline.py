"""How much of the rate at which a machine multiplies matrices becomes training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from benchmarks.speed import materials
from benchmarks.speed.row import Outcome
from benchmarks.speed.work import Work, auto_class, encoded

Precision = Literal["float32", "bfloat16"]


def with_share(outcome: Outcome, work: Work, root: Path, precision: Precision) -> Outcome:
    """Return an outcome that says which share of the matrix rate of this machine it reached, where that can be told."""
    import torch

    if work.whole or work.method == "freeze":
        return outcome
    rate, reached = matrix_rate(precision), operations(work, root) / outcome.seconds
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "this processor"
    return outcome.noted(
        f"{reached / rate:.0%} of the {rate / 1e9:,.3g} GFLOP/s at which {where} multiplies {precision} matrices"
    )


def operations(work: Work, root: Path) -> float:
    """Return the operations of the products that training cannot do without, over all real tokens.

    A weight and token take 2 forward, 2 for the slope below and, where the weight learns, 2 for its own. The output
    layer of a decoder multiplies labelled tokens alone. Attention and LoRA's pairs are left out.
    """
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = auto_class(work.shape.family).from_config(materials.config(work.shape)).train()
    products = 0

    def multiplied(layer: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        nonlocal products
        products += arguments[0].shape[:-1].numel() * layer.weight.numel()

    for layer in model.modules():
        if isinstance(layer, nn.Linear | Conv1D):
            layer.register_forward_pre_hook(multiplied)
    rows = encoded(work, "train", root)
    # Products are linear in the tokens, and nothing is computed on this device: all rows are one.
    read = torch.zeros(1, sum(len(row["input_ids"]) for row in rows), dtype=torch.long, device="meta")
    if work.shape.family == "bert":
        model(read, token_type_ids=read, position_ids=read)
    elif work.shape.family == "t5":
        written = sum(len(row["labels"]) for row in rows)
        model(read, decoder_input_ids=torch.zeros(1, written, dtype=torch.long, device="meta"))
    else:
        model.config.pad_token_id = None  # Else GPT-2 looks for padding in tokens that are not there.
        model(read, logits_to_keep=sum(label != -100 for row in rows for label in row["labels"]))
    return (6.0 if work.method == "full" else 4.0) * products * work.epochs


def matrix_rate(precision: Precision) -> float:
    """Return the operations a second of the product of two large square matrices, the best of ten and of two ways."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 1024
    one, other = (torch.randn(size, size, dtype=getattr(torch, precision), device=device) for _ in range(2))
    ways: list[Callable[[], Any]] = [lambda: one @ other]
    if device == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(one, other, None, "none", [], ""))
    return 2.0 * size**3 / min(_seconds(way) for way in ways for _ in range(10))


def _seconds(way: Callable[[], Any]) -> float:
    import torch

    def settled() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    begun = settled()
    way()
    return settled() - begun
