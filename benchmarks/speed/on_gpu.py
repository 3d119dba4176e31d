"""Arms on a GPU: how much of the rate at which the same card multiplies matrices becomes training."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed import materials, peers, training
from benchmarks.speed.row import TINY, Outcome, Stopwatch
from benchmarks.speed.work import Work, collator, encoded, import_all, loss_of, real_tokens


def prepare(work: Work, root: Path) -> None:
    """Write model and rows; refuse where there is no GPU, but for small work that only tries the way."""
    import torch

    if not (TINY or torch.cuda.is_available()):
        raise SystemExit("this row needs a CUDA GPU, and torch finds none here")
    work.prepare(root)


def lorakit(work: Work, settings: Mapping[str, str], root: Path) -> Outcome:
    """Train with lorakit."""
    outcome = training.lorakit(work, {"data.max_length": "4096", **settings}, root)
    return _told(work, outcome, root)


def trainer(work: Work, attention: str, root: Path) -> Outcome:
    """Train with transformers.Trainer and PEFT beside a base in bfloat16, as is usual on a GPU."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    import_all(work, "transformers.trainer")
    watch = Stopwatch()

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.start()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            watch.stop()

    torch.manual_seed(0)
    model = peers.peer_model(work, root, dtype="bfloat16", attn_implementation=attention).to(_device())
    collate, rows = collator(work, model, root), encoded(work, "train", root)
    model(**collate(rows[:2]).to(_device())).loss.backward()
    model.zero_grad(set_to_none=True)
    with tempfile.TemporaryDirectory(dir=root) as place:
        arguments = TrainingArguments(
            output_dir=place,
            per_device_train_batch_size=work.rows_per_step,
            **{**peers.arguments(work), "use_cpu": _device() == "cpu", "bf16": True},
        )
        Trainer(model, arguments, train_dataset=rows, data_collator=collate, callbacks=[Watch()]).train()
    outcome = _told(work, watch.outcome(real_tokens(work, root)), root)
    return replace(outcome, loss=loss_of(work, model.float(), root))


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _told(work: Work, outcome: Outcome, root: Path) -> Outcome:
    """Return an outcome with the memory of the card, and the share of its matrix rate that was reached."""
    import torch

    if torch.cuda.is_available():
        outcome = replace(outcome, peak_bytes=torch.cuda.max_memory_allocated())
    rate, reached = matrix_rate(), operations(work, root) / outcome.seconds
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "a processor"
    share = f"{reached / rate:.0%} of the {rate / 1e12:.3g} TFLOP/s at which {where} multiplies bfloat16 matrices"
    return replace(outcome, note="; ".join(part for part in (share, outcome.note) if part))


def operations(work: Work, root: Path) -> float:
    """Return the operations of LoRA's products over all real tokens: 4 a frozen weight and token, forward and backward.

    Weight gradients of the base are not computed, the output layer multiplies labelled tokens alone, and attention and
    the pairs themselves are left out.
    """
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(materials.config(work.shape))
    scored = model.get_output_embeddings()
    inner = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear) and part is not scored)
    rows = encoded(work, "train", root)
    labelled = work.epochs * sum(label != -100 for row in rows for label in row["labels"])
    return 4.0 * (inner * real_tokens(work, root) + scored.weight.numel() * labelled)


def matrix_rate() -> float:
    """Return the bfloat16 operations a second of the product of two large square matrices, the best of ten."""
    import time

    import torch

    size = 8192 if _device() == "cuda" else 512
    one, other = (torch.randn(size, size, dtype=torch.bfloat16, device=_device()) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        if _device() == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        one @ other
        if _device() == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best
