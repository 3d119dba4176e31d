"""One arm of a comparison in a process of its own: train, and print what it took as JSON.

python -m benchmarks.training.arms lorakit WORK [key=value …]      # settings of lorakit's recipe
python -m benchmarks.training.arms trainer WORK                    # transformers.Trainer with PEFT, as it comes
python -m benchmarks.training.arms grouped WORK                    # the same, rows of similar length together
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.training.work import Work, load

EPOCHS = 2
"""Passes over the rows; the last one is timed, in which every row stands once."""


@dataclass
class Clock:
    """Time of each step."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    _at: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        """Begin a step."""
        self._at = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """End a step."""
        self.seconds.append(time.perf_counter() - self._at[0])
        self.processor.append(time.process_time() - self._at[1])
        self.begin()

    def result(self, tokens: int, loss: float, notes: list[str]) -> dict[str, Any]:
        """Return what is printed.

        Args:
            tokens: Real tokens of one epoch.
            loss: Evaluation loss at the end, in nats a label.
            notes: What the arm says of itself.
        """
        last = slice(len(self.seconds) // EPOCHS * (EPOCHS - 1), None)
        return {
            "tokens_per_second": tokens / sum(self.seconds[last]),
            "tokens_per_processor_second": tokens / sum(self.processor[last]),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "loss": loss,
            "notes": notes,
        }


def main() -> None:
    """Run the arm that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=["lorakit", "trainer", "grouped"])
    parser.add_argument("work", type=Path)
    parser.add_argument("settings", nargs="*", help="key=value of lorakit's recipe")
    asked = parser.parse_args()
    # What an arm prints on the way goes to stderr.
    printed = os.dup(1)
    os.dup2(2, 1)
    work = load(asked.work)
    if asked.arm == "lorakit":
        found = lorakit_arm(work, asked.work, asked.settings)
    else:
        found = trainer_arm(work, asked.work, grouped=asked.arm == "grouped")
    with os.fdopen(printed, "w") as out:
        print(json.dumps(found), file=out)
    sys.stdout.flush()
    os._exit(0)


def lorakit_arm(work: Work, folder: Path, settings: list[str]) -> dict[str, Any]:
    """Train with lorakit, everything that decides speed left at its default but for `settings`."""
    import lorakit
    from lorakit.recipe import load as load_recipe
    from lorakit.training.events import EvaluationEvent, StepEvent

    values = {
        "model.name": f"{folder}/model",
        "data.train": f"{folder}/train.jsonl",
        "data.eval": f"{folder}/eval.jsonl",
        "method.name": work.method,
        "optim.learning_rate": str(work.learning_rate),
        "optim.schedule": "linear",
        "optim.warmup": "0.0",
        "optim.weight_decay": "0.0",
        "train.epochs": str(EPOCHS),
        "train.rows_per_step": str(work.rows_per_step),
        "train.evaluate_every": "1000000",
        "train.sample_answers": "0",
        **dict(one.split("=", 1) for one in settings),
    }
    if work.method == "lora":
        values["method.targets"] = json.dumps(work.targets)
    clock = Clock()

    class Watch:
        def report(self, event: Any) -> None:
            if isinstance(event, StepEvent):
                clock.end()
            elif isinstance(event, EvaluationEvent):
                clock.begin()

        def close(self) -> None:
            pass

    recipe = load_recipe(None, [(key, value, "benchmark") for key, value in values.items()])
    with tempfile.TemporaryDirectory() as place:
        result = lorakit.train(recipe, Path(place) / "run", reporters=[Watch()])
        manifest = json.loads((result.folder / "manifest.json").read_text(encoding="utf-8"))
    loss = float(result.state.history[-1]["evaluation"])
    return clock.result(result.state.tokens // EPOCHS, loss, manifest["speed"])


def trainer_arm(work: Work, folder: Path, grouped: bool) -> dict[str, Any]:
    """Train with transformers.Trainer, and PEFT where the method is LoRA."""
    import torch
    import transformers
    from transformers import AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    train, evaluation = (encoded(work, folder / f"{name}.jsonl", tokenizer) for name in ("train", "eval"))
    model = peer_model(work, folder)
    clock = Clock()

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.end()

    collators = {
        "gpt2": transformers.DataCollatorForSeq2Seq(tokenizer),
        "t5": transformers.DataCollatorForSeq2Seq(tokenizer, model=model),
        "bert": transformers.DataCollatorWithPadding(tokenizer),
    }
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place,
            per_device_train_batch_size=work.rows_per_step,
            num_train_epochs=EPOCHS,
            learning_rate=work.learning_rate,
            weight_decay=0.0,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            train_sampling_strategy="group_by_length" if grouped else "random",
        )
        trainer = Trainer(
            model=model, args=arguments, train_dataset=train, data_collator=collators[work.shape], callbacks=[Watch()]
        )
        trainer.train()
    tokens = sum(len(row["input_ids"]) + (len(row["labels"]) if work.shape == "t5" else 0) for row in train)
    return clock.result(tokens, peer_loss(model, evaluation, collators[work.shape]), [])


def encoded(work: Work, path: Path, tokenizer: Any) -> list[dict[str, Any]]:
    """Return rows as Trainer takes them: prompts are not learned, answers end with EOS."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if work.shape == "bert":
        return [{**tokenizer(row["text"]), "labels": int(row["label"].split()[1])} for row in rows]
    if work.shape == "t5":
        return [{**tokenizer(row["source"]), "labels": tokenizer(row["target"]).input_ids} for row in rows]
    found = []
    for row in rows:
        prompt, answer = tokenizer(row["prompt"]).input_ids, tokenizer(row["completion"]).input_ids
        answer = [*answer, tokenizer.eos_token_id]
        ids = prompt + answer
        found.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(prompt) + answer})
    return found


def peer_model(work: Work, folder: Path) -> Any:
    """Return the model as a peer loads it, with PEFT's pairs where the method is LoRA."""
    import peft
    import transformers

    classes = {
        "gpt2": (transformers.AutoModelForCausalLM, {}, "CAUSAL_LM"),
        "bert": (transformers.AutoModelForSequenceClassification, {"num_labels": work.labels}, "SEQ_CLS"),
        "t5": (transformers.AutoModelForSeq2SeqLM, {}, "SEQ_2_SEQ_LM"),
    }
    auto, arguments, task = classes[work.shape]
    model = auto.from_pretrained(folder / "model", dtype="float32", **arguments)
    if work.method == "full":
        return model
    wanted = peft.LoraConfig(task_type=task, r=8, lora_alpha=16, lora_dropout=0.0, target_modules=list(work.targets))
    return peft.get_peft_model(model, wanted)


def peer_loss(model: Any, rows: list[dict[str, Any]], collate: Any) -> float:
    """Return the mean loss a label, row by row."""
    import torch
    from torch.nn.functional import cross_entropy

    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            batch = collate([row])
            labels = batch.pop("labels")
            if labels.ndim > 1 and model.config.is_encoder_decoder:
                batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
            logits = model(**batch).logits
            if labels.ndim > 1 and not model.config.is_encoder_decoder:
                logits, labels = logits[:, :-1], labels[:, 1:]
            total += float(cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="sum"))
            count += int((labels != -100).sum())
    return total / count


if __name__ == "__main__":
    main()
