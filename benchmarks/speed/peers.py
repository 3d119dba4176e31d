"""The peers' arms: transformers.Trainer with PEFT as they come, and TRL."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed.row import Outcome, Stopwatch
from benchmarks.speed.work import Work, bare_model, collator, encoded, import_all, loss_of, real_tokens

Make = Callable[[Any, str, list[Any]], Any]
"""Takes the model, a folder and callbacks; returns a Trainer."""


def trainer(work: Work, root: Path, *, grouped: bool = False) -> Outcome:
    """Train with transformers.Trainer; `grouped` puts rows of similar length together, its own option."""
    from transformers import Trainer, TrainingArguments

    def make(model: Any, place: str, callbacks: list[Any]) -> Any:
        return Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=place,
                per_device_train_batch_size=work.rows_per_step,
                train_sampling_strategy="group_by_length" if grouped else "random",
                **_arguments(work),
            ),
            train_dataset=encoded(work, "train", root),
            data_collator=collator(work, model, root),
            callbacks=callbacks,
        )

    return _measured(work, make, root)


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
        arguments = SFTConfig(
            output_dir=place,
            packing=True,
            max_length=work.rows_per_step * work.mean_length,
            per_device_train_batch_size=1,
            gradient_checkpointing=False,
            bf16=False,
            **_arguments(work),
        )
        return SFTTrainer(model=model, args=arguments, train_dataset=learned, processing_class=cut, callbacks=callbacks)

    return _measured(work, make, root)


def peer_model(work: Work, root: Path) -> Any:
    """Return the model as a peer loads it, with PEFT's pairs where the method is LoRA."""
    import peft

    model = bare_model(work, work.model(root))
    if work.method == "full":
        return model
    task = {"gpt2": "CAUSAL_LM", "bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}[work.shape.family]
    wanted = peft.LoraConfig(
        task_type=task, r=work.rank, lora_alpha=16, lora_dropout=0.0, target_modules=list(work.targets)
    )
    return peft.get_peft_model(model, wanted)


def _arguments(work: Work) -> dict[str, Any]:
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

    import_all(work)
    watch = Stopwatch()

    class Watch(TrainerCallback):
        epoch = 0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.epoch += 1
            if self.epoch == (work.epochs if work.timed == "last epoch" else 1):
                watch.start()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            watch.stop()

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=root) as place:
        watch.start()
        model = peer_model(work, root)
        make(model, place, [] if work.timed == "everything" else [Watch()]).train()
        if work.timed == "everything":
            model.save_pretrained(place)
            watch.stop()
    outcome = watch.outcome(real_tokens(work, root))
    return replace(outcome, loss=loss_of(work, model, root))
