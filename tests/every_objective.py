"""Every objective with every kind of model that it trains: checkpoints, rows, and runs made as `train` makes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from conftest import PAIRS, SENTENCES, save_checkpoint, tiny_gpt2
from lorakit.training.run import Run
from lorakit.training.settings import SgdSettings
from lorakit.types import Example
from lorakit.workflows.building import build
from lorakit.workflows.preparing import Rows, prepare_rows
from masking import SHAPE
from reading import word_pieces
from runs import a_run, recipe
from writers import bart_tokenizer, tiny_writer, unigram_tokenizer

ALPHABET = ("b", "a", "c")
"""Labels, in an order that is not theirs."""
_WORDS = " ".join(SENTENCES).split()
TEXTS = [" ".join(_WORDS[3 * row : 3 * row + 4 + row % 4]) for row in range(8)]
_TAGS = ("B-place", "O", "B-name", "B-place")
_SHIFTED = [*TEXTS[3:], *TEXTS[:3]]


def _answer(row: int) -> list[dict[str, Any]]:
    """Every third question has none."""
    words = TEXTS[row].split()
    return [] if row % 3 == 2 else [{"text": words[1], "answer_start": len(words[0]) + 1}]


ROWS: dict[str, list[dict[str, Any]]] = {
    "pairs": [dict(pair) for pair in PAIRS[::3]],
    "texts": [{"text": f"{text}. {other}."} for text, other in zip(TEXTS, _SHIFTED, strict=True)],
    "documents": [{"text": ". ".join([*TEXTS[row:], *TEXTS[:row]])} for row in range(8)],
    "translations": [
        {"source": text, "target": " ".join(other.split()[: 1 + row % 4])}
        for row, (text, other) in enumerate(zip(TEXTS, _SHIFTED, strict=True))
    ],
    # One label is rare, so that weights differ.
    "labelled": [{"text": text, "label": ALPHABET[row % 3 if row < 5 else 0]} for row, text in enumerate(TEXTS)],
    "several": [
        {"text": text, "labels": [name for place, name in enumerate(ALPHABET) if (row + 1) & (1 << place)]}
        for row, text in enumerate(TEXTS)
    ],
    "scored": [{"text": text, "score": 0.7 * row - 2} for row, text in enumerate(TEXTS)],
    "tagged": [
        {"tokens": text.split(), "tags": [_TAGS[(row + place) % 4] for place in range(len(text.split()))]}
        for row, text in enumerate(TEXTS)
    ],
    "questions": [
        {"question": other, "context": text, "answers": _answer(row)}
        for row, (text, other) in enumerate(zip(TEXTS, _SHIFTED, strict=True))
    ],
}
"""Rows of a file by what they are; texts of several lengths, English and Korean."""


@dataclass(frozen=True)
class Case:
    """An objective on a model type."""

    model_type: str
    rows: str
    objective: Mapping[str, Any]
    """Section of the recipe."""
    method: str = "full"

    @property
    def name(self) -> str:
        """Of the objective."""
        return str(self.objective["name"])


def _cases() -> dict[str, Case]:
    found = {
        "causal_lm": Case("gpt2", "pairs", {"name": "causal_lm"}),
        "masked_lm": Case("bert", "texts", {"name": "masked_lm", "probability": 0.3}),
        "whole words": Case("bert", "texts", {"name": "masked_lm", "probability": 0.4, "whole_words": True}),
        "nsp": Case("bert", "documents", {"name": "masked_lm", "nsp": True}),
    }
    for model_type in ("t5", "bart"):
        found[f"span_corruption-{model_type}"] = Case(model_type, "texts", {"name": "span_corruption"})
        found[f"seq2seq_lm-{model_type}"] = Case(model_type, "translations", {"name": "seq2seq_lm"})
    # With a bias that does not learn, sources and targets of a T5 are packed.
    found["span_corruption-t5-packed"] = Case("t5", "texts", {"name": "span_corruption"}, "lora")
    found["seq2seq_lm-t5-packed"] = Case("t5", "translations", {"name": "seq2seq_lm"}, "lora")
    classes = {"name": "sequence_classification"}
    for model_type in ("bert", "gpt2", "t5"):
        found |= {
            f"labels-{model_type}": Case(model_type, "labelled", classes),
            f"weights-{model_type}": Case(model_type, "labelled", {**classes, "class_weights": "balanced"}),
            f"several-{model_type}": Case(model_type, "several", classes),
            f"score-{model_type}": Case(model_type, "scored", classes),
            f"tags-{model_type}": Case(model_type, "tagged", {"name": "token_classification"}),
            f"answers-{model_type}": Case(model_type, "questions", {"name": "question_answering", "max_answer": 5}),
        }
    return found


RATE = 0.01
"""Learning rate of a step."""

CASES = _cases()
"""By a short name; `test_every_objective.py` says which are missing."""


def save_bert(folder: Path) -> Path:
    """Write a tiny BERT as it comes from its pretraining, with its tokenizer."""
    from transformers import BertConfig, BertForPreTraining

    torch.manual_seed(0)
    tokenizer = word_pieces()
    # As a BERT of the real size has it, though these positions are fewer.
    shape = {**SHAPE, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    tokenizer.model_max_length = 64
    return save_checkpoint(folder, BertForPreTraining(BertConfig(**shape)), tokenizer)


def save_t5(folder: Path) -> Path:
    """Write a tiny T5 with sentinels."""
    tokenizer = unigram_tokenizer()
    return save_checkpoint(folder, tiny_writer("t5", vocab_size=len(tokenizer), initializer_factor=1.0), tokenizer)


def save_bart(folder: Path) -> Path:
    """Write a tiny BART with a mask token."""
    tokenizer = bart_tokenizer()
    return save_checkpoint(folder, tiny_writer("bart", vocab_size=len(tokenizer)), tokenizer)


def save_gpt2(folder: Path) -> Path:
    """Write a tiny GPT-2."""
    return save_checkpoint(folder, tiny_gpt2())


SAVED = {"bert": save_bert, "gpt2": save_gpt2, "t5": save_t5, "bart": save_bart}


@dataclass(frozen=True)
class Workshop:
    """Checkpoints and files of rows, in one folder."""

    folder: Path

    @classmethod
    def filled(cls, folder: Path) -> Workshop:
        """Write all of them."""
        for model_type, save in SAVED.items():
            save(folder / model_type)
        for name, rows in ROWS.items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            for file in (f"{name}.jsonl", f"{name} again.jsonl"):
                (folder / file).write_text(text, encoding="utf-8")
        return cls(folder)

    def model(self, case: Case) -> Path:
        """Return the folder of the checkpoint."""
        return self.folder / case.model_type

    def data(self, case: Case) -> Path:
        """Return the file of rows."""
        return self.folder / f"{case.rows}.jsonl"

    def evaluation(self, case: Case) -> Path:
        """Return another file of the same rows."""
        return self.folder / f"{case.rows} again.jsonl"

    def recipe(self, case: Case, **values: Any) -> Any:
        """Return a recipe whose evaluation rows are the training rows."""
        given = {
            "objective": case.objective,
            "data__eval": str(self.evaluation(case)),
            "method": case.method,
            "train__dropout": 0.0,
            "train__rows_per_step": 8,
        }
        return recipe(self.model(case), self.data(case), **{**given, **values})

    def rows(self, case: Case, **values: Any) -> Rows:
        """Return the rows of a run, read and encoded as `train` does."""
        return prepare_rows(self.recipe(case, **values).recipe)

    def run(self, case: Case, world: int = 1, **values: Any) -> tuple[Run, list[Example]]:
        """Return a run put together from what `train` builds, and its first eight examples; plain SGD without clip."""
        loaded = self.recipe(case, **values)
        rows = prepare_rows(loaded.recipe)
        built = build(loaded.recipe, rows, torch.device("cpu"), world)
        optim = SgdSettings(learning_rate=RATE, weight_decay=0.0, warmup=0.0, clip=math.inf)
        run = a_run(self.folder, built.model, rows.plan.examples, packed=built.packed, optim=optim)
        return replace(run, objective=rows.objective), rows.plan.examples[:8]
