"""What is trained in the comparisons, and the loss that every arm is judged by."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.speed import materials
from benchmarks.speed.materials import Shape

MEGA_BATCH = 50
"""Batches that Trainer groups by length at a time, of a large set."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One fine-tuning."""

    shape: Shape
    method: Literal["lora", "full", "freeze"]
    rows: int
    rows_per_step: int
    learning_rate: float
    targets: tuple[str, ...] = ()
    """Layers that LoRA adapts, in every arm."""
    rank: int = 8
    mean_length: int = 96
    epochs: int = 1
    whole: bool = False
    """Whether the clock runs from the files to the result on disk; else from the first step, warmed up, to the last."""

    def model(self, root: Path) -> Path:
        """Return the folder of the model."""
        return materials.model(self.shape, root)

    def data(self, part: str, root: Path) -> Path:
        """Return the file of rows: `train` or `eval`."""
        return materials.rows(self.shape.family, self.rows, self.mean_length, root) / f"{part}.jsonl"

    def prepare(self, root: Path) -> None:
        """Write the model and the rows."""
        self.model(root)
        self.data("train", root)


def import_all(work: Work, *libraries: str) -> None:
    """Import what an arm needs, so that the time of imports is not counted; what another one needs is no load of it."""
    family = work.shape.family
    for name in ("torch", "peft", "accelerate", f"transformers.models.{family}.modeling_{family}", *libraries):
        importlib.import_module(name)


def auto_class(family: str) -> Any:
    """Return the class of transformers that makes the models of a family, with their head."""
    import transformers

    return {
        "gpt2": transformers.AutoModelForCausalLM,
        "llama": transformers.AutoModelForCausalLM,
        "bert": transformers.AutoModelForSequenceClassification,
        "t5": transformers.AutoModelForSeq2SeqLM,
    }[family]


def bare_model(work: Work, folder: Path, **how: Any) -> Any:
    """Return the model of a folder, in float32 unless `how` says otherwise."""
    return auto_class(work.shape.family).from_pretrained(folder, **{"dtype": "float32", **how})


def encoded(work: Work, part: str, root: Path) -> list[dict[str, Any]]:
    """Return rows as Trainer takes them: prompts are not learned, answers end with EOS."""
    from transformers import AutoTokenizer

    cut = AutoTokenizer.from_pretrained(work.model(root))
    rows = [json.loads(line) for line in work.data(part, root).read_text(encoding="utf-8").splitlines()]
    if work.shape.family == "bert":
        return [{**cut(row["text"]), "labels": int(row["label"].split()[1])} for row in rows]
    if work.shape.family == "t5":
        return [{**cut(row["source"]), "labels": cut(row["target"]).input_ids} for row in rows]
    found = []
    for row in rows:
        prompt, answer = cut(row["prompt"]).input_ids, [*cut(row["completion"]).input_ids, cut.eos_token_id]
        ids = prompt + answer
        found.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(prompt) + answer})
    return found


def real_tokens(work: Work, root: Path) -> float:
    """Return the tokens that all epochs read and write; padding is none."""
    rows = encoded(work, "train", root)
    tokens = sum(len(row["input_ids"]) + (len(row["labels"]) if work.shape.family == "t5" else 0) for row in rows)
    return tokens * work.epochs


def filled(lengths: Sequence[int], batch: int) -> float:
    """Return the share of real tokens in padded batches of `lengths`, grouped as Trainer groups them on a large set."""
    padded = 0
    for begin in range(0, len(lengths), MEGA_BATCH * batch):
        grouped = sorted(lengths[begin : begin + MEGA_BATCH * batch], reverse=True)
        batches = [grouped[at : at + batch] for at in range(0, len(grouped), batch)]
        padded += sum(found[0] * len(found) for found in batches)
    return sum(lengths) / padded


def collator(work: Work, model: Any, root: Path) -> Any:
    """Return what pads rows into a batch."""
    import transformers

    cut = transformers.AutoTokenizer.from_pretrained(work.model(root))
    if work.shape.family == "bert":
        return transformers.DataCollatorWithPadding(cut)
    return transformers.DataCollatorForSeq2Seq(cut, model=model if work.shape.family == "t5" else None)


def loss_of(work: Work, model: Any, root: Path) -> float:
    """Return the mean loss of the rows for evaluation in nats a label, row by row in float32."""
    import torch
    from torch.nn.functional import cross_entropy

    collate = collator(work, model, root)
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in encoded(work, "eval", root):
            batch = collate([row]).to(next(model.parameters()).device)
            labels = batch.pop("labels")
            if work.shape.family == "t5":
                batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
            logits = model(**batch).logits
            if work.shape.family in ("gpt2", "llama"):
                logits, labels = logits[:, :-1], labels[:, 1:]
            total += float(cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="sum"))
            count += int((labels != -100).sum())
    return total / count
