"""Arms on a GPU: memory is the card's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed import peers, training
from benchmarks.speed.roofline import with_share
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
    return _of_the_card(training.lorakit(work, {"data.max_length": "4096", **settings}, root))


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
    outcome = with_share(_of_the_card(watch.outcome(real_tokens(work, root))), work, root, "bfloat16")
    return replace(outcome, loss=loss_of(work, model.float(), root))


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _of_the_card(outcome: Outcome) -> Outcome:
    """Return an outcome with the memory of the card in place of the process's."""
    import torch

    if not torch.cuda.is_available():
        return outcome
    return replace(outcome, peak_bytes=torch.cuda.max_memory_allocated())
