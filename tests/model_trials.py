"""Every model type with every objective and method of its kind: trained two steps, stored, reloaded, merged.

What holds is a test (`unit/test_model_types.py`) and a table of the readme (`scripts/model_table.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lorakit import families, methods, objectives
from lorakit.adapters import merging
from lorakit.adapters.bundle import Target, write_weights
from lorakit.adapters.lora_config import read_lora_file
from lorakit.adapters.manifest import Base, Manifest
from lorakit.checkpoints import heads
from lorakit.checkpoints.finding import Checkpoint, find, quiet
from lorakit.data.encoding import style_for
from lorakit.errors import CheckpointError
from lorakit.methods.settings import DeltaSettings, FreezeSettings, FullSettings, HeadSettings, LoraSettings
from lorakit.objectives.settings import default
from lorakit.types import Head, HeadTask, Job, Objective, PromptStyle, Row
from model_types import VOCABULARY, tiny_config

WORDS = [f"w{number}" for number in range(VOCABULARY - 20)]
LABELS = ("no", "perhaps", "yes")
METHODS: dict[str, Any] = {
    "full": FullSettings(),
    "freeze": FreezeSettings(),
    "head": HeadSettings(),
    "lora": LoraSettings(rank=2),
    "delta": DeltaSettings(),
}

_TEXTS = [" ".join(WORDS[(7 * row + step * step) % len(WORDS)] for step in range(9 + row)) for row in range(4)]


def _answers(context: str) -> list[dict[str, Any]]:
    word = context.split()[2]
    return [{"text": word, "start": context.index(f" {word}") + 1}]


ROWS: dict[str, list[dict[str, Any]]] = {
    "causal_lm": [{"prompt": text, "completion": text[:8]} for text in _TEXTS],
    "masked_lm": [{"text": text} for text in _TEXTS],
    "masked_lm_nsp": [{"text": ". ".join(_TEXTS[row:] + _TEXTS[:row])} for row in range(4)],
    "span_corruption": [{"text": text} for text in _TEXTS],
    "seq2seq_lm": [{"source": text, "target": text[:8]} for text in _TEXTS],
    "sequence_classification": [{"text": text, "label": LABELS[row % 3]} for row, text in enumerate(_TEXTS)],
    "token_classification": [
        {"tokens": text.split(), "tags": [LABELS[place % 3] for place in range(len(text.split()))]} for text in _TEXTS
    ],
    "question_answering": [
        {"question": WORDS[row], "context": text, "answers": _answers(text)} for row, text in enumerate(_TEXTS)
    ],
}
"""Canonical rows of each objective; ``masked_lm_nsp`` is masked words with next sentences."""


@dataclass(frozen=True)
class Trial:
    """One model type with a head, ready for every method."""

    objective: Objective
    checkpoint: Checkpoint
    model: Any
    fresh: tuple[str, ...]
    batch: Any


@cache
def tokenizer(first: tuple[str, ...]) -> Any:
    """Return a tokenizer of whole words, whose control tokens come in the order that a type expects."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    control = [*first, "<mask>", "<unk>", *(f"<extra_id_{number}>" for number in range(15))]
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate([*control, *WORDS])}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", first.index("<s>")), ("</s>", first.index("</s>"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        mask_token="<mask>",
        unk_token="<unk>",
        additional_special_tokens=[f"<extra_id_{number}>" for number in range(15)],
    )


def make_checkpoint(folder: Path, model_type: str) -> Checkpoint:
    """Write a random checkpoint of a type, as it comes from pretraining, and open it."""
    kind = families.of(model_type).kind
    task: HeadTask = {"encoder": "masked_lm", "decoder": "causal_lm", "encoder_decoder": "seq2seq_lm"}[kind]
    head = Head("masked_lm_nsp" if model_type == "bert" else task)
    torch.manual_seed(0)
    with quiet():
        config = tiny_config(model_type)
        model = heads.model_class(head, config)(config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.empty_like(weight).normal_(0, 0.1, generator=generator))
        model.save_pretrained(folder)
    control = ("<s>", "<pad>", "</s>") if config.pad_token_id == 1 else ("<pad>", "<s>", "</s>")
    tokenizer(control).save_pretrained(folder)
    checkpoint = find(str(folder))
    # Some types read any tokenizer.json as one of their own kind, for which whole words are no tokens.
    vars(checkpoint)["tokenizer"] = tokenizer(control)
    return checkpoint


def trials(checkpoint: Checkpoint) -> Iterator[tuple[str, Trial | None]]:
    """Yield each objective of a checkpoint's kind with what is trained; None where there is no such model of it."""
    kind = checkpoint.family.kind
    for name in ROWS:
        own = name.removesuffix("_nsp")
        if kind in objectives.KINDS[own] and not (name == "masked_lm_nsp" and checkpoint.family.model_type != "bert"):
            try:
                yield name, _trial(checkpoint, name)
            except CheckpointError as problem:
                # No such class; or, for answers of llama, qwen2 and qwen3, one that cannot read the type's own files.
                if "transformers has no" not in str(problem) and "under other names" not in str(problem):
                    raise
                yield name, None


def _trial(checkpoint: Checkpoint, name: str) -> Trial:
    own = name.removesuffix("_nsp")
    changes: dict[str, Any] = {"nsp": True} if name != own else {}
    classes = own in ("sequence_classification", "token_classification")
    if classes:
        changes["labels"] = list(LABELS)
    settings = default(own).model_copy(update=changes)
    format_name = objectives.FORMATS[own][1 if own == "causal_lm" else 0]
    style = style_for(format_name, checkpoint.tokenizer, "") if own == "causal_lm" else PromptStyle(format_name)
    job = Job(
        settings=settings,
        tokenizer=checkpoint.tokenizer,
        family=checkpoint.family,
        config=checkpoint.config,
        format=format_name,
        style=style,
        max_length=64,
        labels=LABELS if classes else (),
        problem="single_label_classification" if own == "sequence_classification" else None,
    )
    objective = objectives.make(own, job)
    rows = [Row(fields, "rows.jsonl", line) for line, fields in enumerate(ROWS[name], 1)]
    batch = objective.collate(objective.encode(rows), packed=False)
    model, fresh = checkpoint.load_for(objective.head, attention="eager", dropout=0.0)
    return Trial(objective, checkpoint, model, fresh, batch)


def trained(trial: Trial, method: str) -> tuple[Any, tuple[str, ...], float]:
    """Return the model after two steps, the names of what learned, and by how much the loss fell."""
    torch.manual_seed(0)
    with quiet():
        model, trainable = methods.load(method)(
            copy.deepcopy(trial.model), METHODS[method], trial.checkpoint.family, trial.objective.head, trial.fresh
        )
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.01)
    losses = []
    for _ in range(3):
        sums, counts = trial.objective.loss_sums(model, trial.batch), trial.objective.counts(trial.batch)
        loss = sum(sums[term] / counts[term] for term in sums)
        losses.append(float(loss.detach()))
        if len(losses) <= 2:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), trainable.names, losses[0] - losses[2]


def scores(trial: Trial, model: Any) -> torch.Tensor:
    """Return all scores of the batch that the loss reads, end to end."""
    with torch.no_grad():
        return torch.cat([each.flatten() for each in trial.objective.outputs(model, trial.batch).values()])


def stored(trial: Trial, method: str, model: Any, names: tuple[str, ...], folder: Path) -> Target:
    """Write what was trained and return it as a target."""
    folder.mkdir()
    form, checkpoint, head = methods.FORMS[method], trial.checkpoint, trial.objective.head
    write_weights(folder, model, form, checkpoint, head)
    base = Base(
        identity=checkpoint.identity, fingerprint=checkpoint.fingerprint, model_type=checkpoint.family.model_type
    )
    manifest = Manifest(form=form, base=base, head=head, trained=names if form == "changed" else ())
    adapter = read_lora_file(folder) if form == "lora" else None
    return Target(checkpoint, folder, form, manifest, adapter)


def plain(trial: Trial, folder: Path, adapter: Path | None = None) -> Any:
    """Load a folder with transformers, and an adapter with PEFT, without any part of lorakit."""
    with quiet():
        config = {} if adapter is None else heads.config_keys(trial.objective.head)
        loaded = heads.auto_class(trial.objective.head).from_pretrained(
            str(folder), attn_implementation="eager", dtype=torch.float32, **config
        )
        if adapter is not None:
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(loaded, str(adapter))
    return loaded.eval()


def prove(trial: Trial, method: str, folder: Path) -> None:
    """Train two steps and hold what comes back from disk to it: through plain libraries, and after a merge.

    Args:
        trial: What is trained.
        method: How.
        folder: Empty.
    """
    model, names, fall = trained(trial, method)
    assert fall > 0, "the loss did not fall"
    expected = scores(trial, model)
    target = stored(trial, method, model, names, folder / "stored")
    if target.form == "full":
        returned = [plain(trial, target.folder)]
    else:
        (folder / "merged").mkdir()
        merging.fold(target, folder / "merged")
        base = trial.checkpoint.folder
        alone = plain(trial, base, target.folder) if target.form == "lora" else target.load(attention="eager")
        returned = [alone, plain(trial, folder / "merged")]
    for each in returned:
        torch.testing.assert_close(scores(trial, each), expected, atol=2e-4, rtol=2e-4)


def row(model_type: str, folder: Path) -> str:
    """Return the line of the readme's table about a type, everything in it proved."""
    checkpoint = make_checkpoint(folder / "base", model_type)
    works = dict.fromkeys(ROWS, "")
    for objective, trial in trials(checkpoint):
        works[objective] = "–"
        if trial is not None:
            for method in METHODS:
                place = folder / objective / method
                place.mkdir(parents=True)
                prove(trial, method, place)
            works[objective] = "✓"
    packs = "✓" if checkpoint.family.packs else "–"
    return f"| {model_type} | {packs} | {' | '.join(works.values())} |"


HEADING = [f"| type | packed | {' | '.join(name.replace('_', ' ') for name in ROWS)} |", "| --- " * 10 + "|"]
"""First two lines of the table."""
