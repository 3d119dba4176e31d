"""What tests of training share: a run of the loop put together by hand, and `lorakit train` called in the process."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from conftest import tiny_tokenizer
from lorakit.data.batching import FixedPlan
from lorakit.data.encoding import TextEncoder, style_for
from lorakit.objectives.causal_lm import IGNORED, CausalLM
from lorakit.objectives.settings import CausalLMSettings
from lorakit.recipe import load
from lorakit.training import optim as optims
from lorakit.training.reporters import Reporters
from lorakit.training.run import Run
from lorakit.training.settings import AdamWSettings, TrainSettings
from lorakit.types import Example, Row


def objective(format_name: str = "prompt_completion", tokenizer=None, **changes) -> CausalLM:
    """The objective for rows of a format, with the tiny tokenizer."""
    settings = CausalLMSettings(train_on_prompt=changes.pop("train_on_prompt", False))
    tokenizer = tokenizer or tiny_tokenizer()
    encoder = TextEncoder(tokenizer, style_for(format_name, tokenizer, settings.separator))
    return CausalLM(settings, encoder, **{"max_length": 64, **changes})


def rows(fields: Iterable[dict]) -> list[Row]:
    """Canonical rows."""
    return [Row(one, "rows.jsonl", line) for line, one in enumerate(fields, 1)]


def random_examples(lengths: Sequence[int], vocabulary: int = 400, seed: int = 0) -> list[Example]:
    """Rows of random tokens; about the later half of each is learned."""
    import numpy as np

    draw = np.random.default_rng(seed)
    examples = []
    for number, length in enumerate(lengths):
        ids = draw.integers(0, vocabulary, length).astype(np.int32)
        labels = np.where(np.arange(length) >= draw.integers(0, max(1, length - 1)), ids, IGNORED).astype(np.int32)
        examples.append(Example(ids, labels, number, f"rows.jsonl line {number + 1}"))
    return examples


def a_run(
    folder: Path,
    model,
    examples: Sequence[Example],
    *,
    evaluation: Sequence[Example] | None = None,
    budget: int = 10**9,
    per_token: int = 0,
    packed: bool = False,
    optim=None,
    reporters=(),
    label_logits_only: bool = True,
    **train,
) -> Run:
    """A run on one process; every weight with `requires_grad` learns."""
    from accelerate import Accelerator

    settings = TrainSettings(**train)
    optim = optim or AdamWSettings(warmup=0.0)
    tokens = None if settings.rows_per_step is not None else settings.tokens_per_step or 8192
    return Run(
        folder=folder,
        output=folder,
        model=model.train(),
        objective=objective(label_logits_only=label_logits_only),
        plan=FixedPlan(examples, settings.seed, settings.epochs, tokens, settings.rows_per_step, settings.max_steps),
        evaluation=evaluation or examples[:2],
        optimizer=optims.build(model, optim, optim.learning_rate or 1e-3),
        accelerator=Accelerator(cpu=True, mixed_precision="no"),
        optim=optim,
        train=settings,
        learning_rate=optim.learning_rate or 1e-3,
        packed=packed,
        budget=budget,
        per_token=per_token,
        precision="float32",
        reporters=Reporters(reporters),
    )


def reference_loss(model, examples: Sequence[Example]) -> torch.Tensor:
    """Mean cross-entropy of the labelled tokens, written down once more: row by row, no padding, no fast path."""
    total, count = torch.zeros((), dtype=next(model.parameters()).dtype), 0
    for example in examples:
        ids = torch.tensor(example.ids, dtype=torch.long)
        scores = torch.log_softmax(model(input_ids=ids[None], use_cache=False).logits[0], dim=-1)
        for position in range(1, len(ids)):
            if example.labels[position] != IGNORED:
                total = total - scores[position - 1, int(example.labels[position])]
                count += 1
    return total / count


def in_float64(model):
    """The same model in float64, with plain attention, its gradients empty."""
    other = copy.deepcopy(model).double()
    other.set_attn_implementation("eager")
    other.zero_grad(set_to_none=True)
    return other


def recipe(model: Path, data: Path | str, **values):
    """A recipe from dotted keys, `__` in place of the dot: ``train__epochs=2``."""
    given = {
        "model.name": str(model),
        "data.train": str(data),
        "train.device": "cpu",
        "train.dtype": "float32",
        "train.rows_per_step": 4,
        "train.epochs": 1,
        "train.sample_answers": 0,
        **{key.replace("__", "."): value for key, value in values.items()},
    }
    return load(None, [(key, json.dumps(value), "--set") for key, value in given.items() if value is not None])


def train(output: Path, *arguments, reporters=(), resume=False, force=False, **values):
    """`lorakit.train` of a recipe; with `resume` and no model, as `lorakit train --resume -o output`."""
    from lorakit.workflows.training import train as run

    loaded = recipe(*arguments, **values) if arguments else None
    return run(loaded, output, resume=resume, force=force, reporters=reporters)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the safetensors files of a folder."""
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def metrics(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("tokens_per_second", "seconds_left")}
        for line in lines
    ]


class Listener:
    """A reporter that keeps events, and calls `act` with each."""

    def __init__(self, act=None) -> None:
        self.events, self.act, self.closed = [], act, False

    def report(self, event) -> None:
        self.events.append(event)
        if self.act is not None:
            self.act(event)

    def close(self) -> None:
        self.closed = True
