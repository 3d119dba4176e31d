"""Lorakit's arm of a fine-tuning, and the arms that most rows of training have."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.speed import peers
from benchmarks.speed.roofline import Precision, with_share
from benchmarks.speed.row import Arm, Outcome, Stopwatch
from benchmarks.speed.work import Work, bare_model, import_all, loss_of, real_tokens

DEFAULTS: Mapping[str, str] = MappingProxyType({})
EXACT: Mapping[str, str] = MappingProxyType({"train.dtype": "float32"})


def arms(work: Work) -> tuple[Arm, ...]:
    """Return Trainer and lorakit as they come; of LoRA also Trainer with rows grouped by length, and float32."""
    if work.method != "lora":
        return Arm("Trainer", partial(peers.trainer, work), peer=True), Arm("lorakit", partial(lorakit, work, DEFAULTS))
    peer = "Trainer + PEFT"
    by_length = Arm(f"{peer}, grouped by length", partial(peers.grouped_trainer, work), peer=True)
    return (
        Arm(peer, partial(peers.trainer, work), peer=True),
        by_length,
        Arm("lorakit", partial(lorakit, work, DEFAULTS)),
        Arm("lorakit train.dtype=float32", partial(lorakit, work, EXACT)),
    )


def lorakit(work: Work, settings: Mapping[str, str], root: Path) -> Outcome:
    """Train with lorakit, everything that decides speed left at its default but for `settings`."""
    import lorakit as package
    from lorakit.recipe import load
    from lorakit.training.events import EvaluationEvent, StepEvent

    import_all(work)
    watch = Stopwatch()
    losses: list[float] = []

    class Watch:
        def report(self, event: Any) -> None:
            if isinstance(event, EvaluationEvent):
                losses.append(event.loss)
            if work.whole:
                return
            if isinstance(event, EvaluationEvent) and event.step == 0:
                watch.start()
            elif isinstance(event, StepEvent):
                watch.stop()

        def close(self) -> None:
            pass

    recipe = load(None, [(key, value, "benchmark") for key, value in _recipe(work, settings, root).items()])
    with tempfile.TemporaryDirectory(dir=root) as place:
        watch.start()
        folder = package.train(recipe, Path(place) / "run", reporters=[Watch()]).folder
        if work.whole:
            watch.stop()
        outcome = watch.outcome(real_tokens(work, root))
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        loss, told = _loss(work, folder, root), manifest["speed"]
        best, last = (manifest["metrics"][name] for name in ("best_step", "steps"))
        if best != last:
            # Peers keep the last step, lorakit the best: of training the same, the last ones are to be compared.
            loss, told = losses[-1], [*told, f"the loss is its own of step {last}; kept is step {best}, {loss:.4f}"]
        precision: Precision = "bfloat16" if told[0].startswith("precision bfloat16") else "float32"
        found = replace(outcome, loss=loss, output=_changed(folder))
        return with_share(found, work, root, precision).noted("; ".join(told))


def _recipe(work: Work, settings: Mapping[str, str], root: Path) -> dict[str, str]:
    values = {
        "model.name": str(work.model(root)),
        "data.train": str(work.data("train", root)),
        "data.eval": str(work.data("eval", root)),
        "method.name": work.method,
        "optim.learning_rate": str(work.learning_rate),
        "optim.schedule": "linear",
        "optim.warmup": "0.0",
        "optim.weight_decay": "0.0",
        "train.epochs": str(work.epochs),
        "train.rows_per_step": str(work.rows_per_step),
        "train.evaluate_every": "1000000",
        "train.sample_answers": "0",
    }
    if work.method == "lora":
        values |= {"method.targets": json.dumps(work.targets), "method.rank": str(work.rank)}
    return {**values, **settings}


def _loss(work: Work, folder: Path, root: Path) -> float:
    """Return the evaluation loss of a finished run, read as others read it where they can: by transformers and PEFT."""
    import peft

    from lorakit.adapters.bundle import open_target

    if work.method == "lora":
        base = bare_model(work, work.model(root))
        return loss_of(work, peft.PeftModel.from_pretrained(base, folder), root)
    return loss_of(work, open_target(str(folder)).load("float32"), root)


def _changed(folder: Path) -> str | None:
    """Return a digest of the weights that a method other than LoRA has changed."""
    file = folder / "trained.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
