"""The peers' arms: transformers.Trainer with PEFT as they come, and TRL."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed import materials
from benchmarks.speed.roofline import with_share
from benchmarks.speed.row import Outcome, Stopwatch
from benchmarks.speed.work import (
    MEGA_BATCH,
    Work,
    bare_model,
    collator,
    encoded,
    filled,
    import_all,
    loss_of,
    real_tokens,
)

Make = Callable[[Any, str, list[Any]], Any]
"""Takes the model, a folder and callbacks; returns a Trainer."""


def trainer(work: Work, root: Path) -> Outcome:
    """Train with transformers.Trainer as it comes."""
    from transformers import Trainer

    return _measured(work, partial(_trainer, Trainer, work, root), root)


def grouped_trainer(work: Work, root: Path) -> Outcome:
    """Train with Trainer's own option `group_by_length`, in batches as it makes them of many rows.

    Of few rows it groups a quarter at a time, of many 50 batches; here it groups all there are.
    """
    from transformers import Trainer
    from transformers.trainer_pt_utils import get_length_grouped_indices

    found = [len(row["input_ids"]) for row in encoded(work, "train", root)]

    class Grouped(Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return get_length_grouped_indices(found, work.rows_per_step, mega_batch_mult=MEGA_BATCH)

    many = filled(materials.lengths(2000, work.mean_length, random.Random(0)), work.rows_per_step)
    few = filled(found, work.rows_per_step)
    note = (
        f"{few:.0%} of what these batches hold are real tokens; of 2,000 rows it would be {many:.0%}, which could "
        f"make it up to {many / few:.2f} times as fast as here"
    )
    return _measured(work, partial(_trainer, Grouped, work, root), root).noted(note)


def _trainer(kind: Any, work: Work, root: Path, model: Any, place: str, callbacks: list[Any]) -> Any:
    """Return a Trainer of this class for a model, its folder and callbacks."""
    from transformers import TrainingArguments

    return kind(
        model=model,
        args=TrainingArguments(output_dir=place, per_device_train_batch_size=work.rows_per_step, **arguments(work)),
        train_dataset=encoded(work, "train", root),
        data_collator=collator(work, model, root),
        callbacks=callbacks,
    )


def packing(work: Work, root: Path) -> Outcome:
    """Train with TRL's SFTTrainer, rows packed into as many tokens as a step of the others has, and tuned.

    Its defaults compute activations twice and multiply in bfloat16 under autocast; both are off, as in Trainer.
    """
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    found = encoded(work, "train", root)
    learned = Dataset.from_list([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in found])
    cut = AutoTokenizer.from_pretrained(work.model(root))

    def make(model: Any, place: str, callbacks: list[Any]) -> Any:
        config = SFTConfig(
            output_dir=place,
            packing=True,
            max_length=work.rows_per_step * work.mean_length,
            per_device_train_batch_size=1,
            gradient_checkpointing=False,
            bf16=False,
            **arguments(work),
        )
        return SFTTrainer(model=model, args=config, train_dataset=learned, processing_class=cut, callbacks=callbacks)

    return _measured(work, make, root)


def peer_model(work: Work, root: Path, **how: Any) -> Any:
    """Return the model as a peer loads it, with PEFT's pairs where the method is LoRA."""
    import peft

    model = bare_model(work, work.model(root), **how)
    if work.method == "full":
        return model
    task = {"gpt2": "CAUSAL_LM", "llama": "CAUSAL_LM", "bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}[work.shape.family]
    wanted = peft.LoraConfig(
        task_type=task, r=work.rank, lora_alpha=16, lora_dropout=0.0, target_modules=list(work.targets)
    )
    return peft.get_peft_model(model, wanted)


def _warm_up(work: Work, model: Any, root: Path) -> None:
    """Take the gradient of two rows, as lorakit has evaluated some before its first step."""
    batch = collator(work, model, root)(encoded(work, "eval", root)[:2])
    model(**batch).loss.backward()
    model.zero_grad(set_to_none=True)


def arguments(work: Work) -> dict[str, Any]:
    """Return what every peer is told: the steps that lorakit takes, and nothing written on the way."""
    return {
        "num_train_epochs": work.epochs,
        "learning_rate": work.learning_rate,
        "weight_decay": 0.0,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }


def _measured(work: Work, make: Make, root: Path) -> Outcome:
    import torch
    from transformers import TrainerCallback

    import_all(work, "transformers.trainer")
    watch = Stopwatch()

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.stop()

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=root) as place:
        watch.start()
        model = peer_model(work, root)
        if not work.whole:
            _warm_up(work, model, root)
        make(model, place, [] if work.whole else [Watch()]).train()
        if work.whole:
            model.save_pretrained(place)
            watch.stop()
    outcome = with_share(watch.outcome(real_tokens(work, root)), work, root, "float32")
    return replace(outcome, loss=loss_of(work, model, root))
