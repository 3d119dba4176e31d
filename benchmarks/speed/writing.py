"""Text written by lorakit and by transformers, from the same prompts."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed import materials
from benchmarks.speed.materials import GPT
from benchmarks.speed.row import Outcome, Stopwatch

WARM = 8
"""Tokens that are written before the clock starts."""


def prompts(count: int, length: int) -> list[str]:
    """Return prompts of so many tokens each."""
    draw = random.Random(1)
    return [" ".join(materials.words(length, draw)) for _ in range(count)]


def prepare(root: Path) -> None:
    """Write the model."""
    materials.model(GPT, root)


def loaded(root: Path) -> tuple[Any, Any]:
    """Return model and tokenizer as transformers loads them."""
    import transformers

    folder = materials.model(GPT, root)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def transformers_generate(texts: Sequence[str], tokens: int, root: Path) -> Outcome:
    """Write with `generate` of transformers."""
    model, cut = loaded(root)
    read = cut(list(texts), return_tensors="pt")
    read.pop("token_type_ids", None)
    watch = Stopwatch()
    model.generate(**read, do_sample=False, max_new_tokens=WARM)
    watch.start()
    written = model.generate(**read, do_sample=False, max_new_tokens=tokens)
    watch.stop()
    answers = [_ended(ids, model.config.eos_token_id) for ids in written[:, read["input_ids"].shape[1] :].tolist()]
    return replace(watch.outcome(sum(map(len, answers))), output=digest(answers))


def lorakit_generate(texts: Sequence[str], tokens: int, options: dict[str, Any], root: Path) -> Outcome:
    """Write with lorakit; `options` are `dtype` and `quantize` of the command."""
    from lorakit.generation.settings import DecodingSettings
    from lorakit.workflows.generating import open_writer

    quantize = options.get("quantize")
    dtype = options.get("dtype", "float32" if quantize else "auto")
    writer = open_writer(materials.model(GPT, root), device="cpu", dtype=dtype, quantize=quantize)
    note = writer.quantize(texts) if quantize else ""
    watch = Stopwatch()
    writer.write(texts, DecodingSettings(max_new_tokens=WARM))
    watch.start()
    answers = [list(one.ids) for one in writer.write(texts, DecodingSettings(max_new_tokens=tokens))]
    watch.stop()
    return replace(watch.outcome(sum(map(len, answers))), output=digest(answers), note=note)


def _ended(ids: list[int], end: int) -> list[int]:
    """Return an answer up to its end of sequence; what follows it in a batch is padding."""
    return ids[: ids.index(end) + 1] if end in ids else ids


def digest(answers: Sequence[Sequence[int]]) -> str:
    """Return a digest of answers, the same for the same ids."""
    return hashlib.sha256(json.dumps([list(ids) for ids in answers]).encode()).hexdigest()
