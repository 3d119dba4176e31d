"""The end of a run: write the bundle, read it back into a fresh base, and prove that it gives the same scores."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lorakit import methods
from lorakit.adapters import card, stored
from lorakit.adapters.bundle import Target, adapter_fingerprint, open_target, write_bundle
from lorakit.adapters.manifest import Base, Manifest, library_versions, write_manifest
from lorakit.checkpoints import heads
from lorakit.checkpoints.finding import tokenizer_fingerprint
from lorakit.checkpoints.folders import whole_folder, write_files
from lorakit.checkpoints.hashes import HASHES
from lorakit.checkpoints.rounded import Width
from lorakit.data.encoding import TextEncoder
from lorakit.errors import TrainingError
from lorakit.fast.settings import SpeedSettings
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings
from lorakit.recipe import LoadedRecipe, resolved_yaml
from lorakit.training import memory
from lorakit.training.precision import compute
from lorakit.training.run import Run
from lorakit.training.state import State
from lorakit.types import Example
from lorakit.workflows import launching
from lorakit.workflows.building import Built, quicken
from lorakit.workflows.compiling import release
from lorakit.workflows.preparing import Rows
from lorakit.workflows.rounding import as_trained, loss_as_is, writing

_SIDE_BY_SIDE = 16
"""Answers written at once."""
_PROBES = 8
"""Evaluation rows whose scores are compared after the bundle is read back."""
_ALIGNMENT = 64
"""Bytes that torch's own memory begins at a multiple of."""


@dataclass(frozen=True)
class Finished:
    """What was written, and what it was held against."""

    weights_bytes: int
    """Size of the file with the trained weights."""
    base_bytes: int
    """Size of the base in the dtype it is stored in."""
    difference: float
    """Largest difference of a score between the model in memory and the bundle read back; 0 where they are equal."""
    answers: int
    """Answers written to evaluation prompts."""
    stopped: int
    """How many of them ended at the end-of-sequence token."""
    loss_as_is: float | None = None
    """Evaluation loss in nats over the base as it is, where it was rounded in training and there was room."""


def finish(
    loaded: LoadedRecipe, rows: Rows, built: Built, run: Run, state: State, local: dict[str, str]
) -> Finished | None:
    """Write the bundle of the best step aside, check it as others will read it, and put it into the run folder.

    Args:
        loaded: The recipe as it ran.
        rows: The rows of the run.
        built: The model as it was made ready.
        run: After `loop.fit`, with the weights of the best step. Where they lie in parts, every process calls this.
        state: What `loop.fit` returned.
        local: Entries of local.json.

    Returns:
        What was written; None on a process that only handed over its parts.

    Raises:
        TrainingError: The bundle read back does not give the same scores.
    """
    release(run)
    model = run.bare_model.eval()
    first = run.accelerator.is_main_process
    manifest = _manifest(loaded, rows, built, run, state)
    proof = run.folder / "checkpoints" / "bundle"
    if first:
        recipe = resolved_yaml(loaded, shared=True)
        with whole_folder(proof, own=True) as aside:
            tokenizer = rows.checkpoint.tokenizer if rows.checkpoint.new_tokens is not None else None
            write_bundle(aside, model, manifest, rows.checkpoint, recipe, local, tokenizer)
    else:
        stored.hand_over(model, methods.FORMS[loaded.recipe.method.name])
    if run.sharded:
        run.accelerator.wait_for_everyone()
    target = open_target(str(proof), base=_base_argument(rows, manifest))
    width, speed = getattr(loaded.recipe.method, "quantize_base", None), loaded.recipe.speed
    difference = _difference(model, target, speed, width, built, run, rows.evaluation[:_PROBES])
    if not first:
        return None
    as_is = None if width is None else loss_as_is(target, speed, built, run)
    asked = loaded.recipe.train.sample_answers
    answers, stopped = (0, 0) if run.sharded else _answers(target, rows, run, width, asked)
    written = {"answers": answers, "answers_that_stop": stopped} if answers else {}
    told = {} if as_is is None else {"evaluation_loss_base_as_is": as_is}
    metrics = {**manifest.metrics, **told, **written, "reload_difference": difference}
    described = manifest.model_copy(update={"metrics": metrics})
    write_files(run.folder, lambda aside: _move(proof, aside, described))
    return Finished(_weights_bytes(run.folder), _base_bytes(rows), difference, answers, stopped, as_is)


def _move(proof: Path, folder: Path, manifest: Manifest) -> None:
    """Move the very files that were checked; only what tells of the check is written anew."""
    for file in proof.iterdir():
        if file.name != HASHES:
            os.replace(file, folder / file.name)
    write_manifest(folder, manifest)
    card.write(folder, manifest)


def _manifest(loaded: LoadedRecipe, rows: Rows, built: Built, run: Run, state: State) -> Manifest:
    checkpoint, recipe = rows.checkpoint, loaded.recipe
    speed = [f"precision {built.precision} ({built.precision_note})"]
    speed.append("varlen" if built.packed else f"no varlen: {built.packing_note}")
    speed.extend(built.taken)
    speed.extend(f"no {name}: switched off" for name, taken in recipe.speed if taken is False and name != "varlen")
    if rows.recalled:
        speed.append("tokens")
    if run.frontier is not None:
        speed.append("frontier")
    if run.compiled:
        speed.append("compile")
    if run.sharded:
        speed.append(f"{launching.cut_as()} over {run.accelerator.num_processes} processes")
    writes = heads.writes(rows.objective.head)
    ends = [example.labels[-1:] for example in rows.evaluation] if writes else []
    answered = {int(end) for last in ends for end in last if end >= 0}
    perplexity = {"perplexity": math.exp(min(700.0, state.best_loss or 0.0))} if writes else {}
    return Manifest(
        form=methods.FORMS[recipe.method.name],
        base=Base(
            identity=checkpoint.identity,
            revision=checkpoint.revision,
            fingerprint=checkpoint.fingerprint,
            model_type=checkpoint.config["model_type"],
        ),
        parent=adapter_fingerprint(rows.target),
        objective=rows.objective.name,
        task=json.loads(rows.settings.model_dump_json()),
        head=rows.objective.head,
        method=json.loads(recipe.method.model_dump_json()),
        style=rows.style,
        normalise=rows.normalise,
        eos_ids=tuple(sorted(checkpoint.eos_ids | answered if rows.format.name != "text" else checkpoint.eos_ids)),
        tokenizer=tokenizer_fingerprint(rows.target.tokenizer),
        added_tokens=checkpoint.new_tokens.tokens if checkpoint.new_tokens is not None else (),
        data=rows.fingerprint,
        libraries=library_versions(),
        metrics={
            "evaluation_loss_before": state.first_loss,
            "evaluation_loss": state.best_loss,
            **perplexity,
            **state.best_details,
            "best_step": state.best_step,
            "steps": state.step,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 1),
            "processes": run.accelerator.num_processes,
        },
        speed=tuple(speed),
        trained=built.trainable.names,
    )


def _base_argument(rows: Rows, manifest: Manifest) -> str | None:
    return None if manifest.form == "full" else str(rows.checkpoint.folder)


def _difference(
    model: nn.Module,
    target: Target,
    speed: SpeedSettings,
    width: Width | None,
    built: Built,
    run: Run,
    examples: Sequence[Example],
) -> float:
    """Return the largest difference of scores between `model` and the bundle read back, in the training precision.

    The weights of `model` are let go in between: there may be no room for two models, and where they lie in parts not
    even for one. There the bundle is read back into `model`, whose frozen weights its base was found to have.

    Raises:
        TrainingError: They differ; on a CPU by anything at all, on an accelerator by more than its kernels vary.
    """
    device = run.accelerator.device
    trained = _all_scores(model, built, run, examples)
    if run.sharded:
        fresh = model
        stored.read_back(target.folder, model, cast(stored.Form, target.form))
        run.accelerator.wait_for_everyone()  # The first one moves the files, which all have to have read.
    else:
        fresh = _replaced(model, target, speed, width, built, device)
    pairs = zip(trained, _all_scores(fresh, built, run, examples), strict=True)
    gaps = [torch.stack(((one - other).abs().max(), one.abs().max())) for one, other in pairs]
    difference, scale = torch.stack(gaps).amax(0).tolist()  # Python's `max` passes over a NaN.
    if not difference <= (0.0 if device.type == "cpu" else 1e-3 * scale):
        raise TrainingError(
            f"the weights read back from {run.folder} give other scores than those in memory (largest difference "
            f"{difference:.2e}). The file system or this version of a library is at fault; nothing was reported."
        )
    return difference


def _replaced(
    model: nn.Module, target: Target, speed: SpeedSettings, width: Width | None, built: Built, device: torch.device
) -> nn.Module:
    """Let the weights of `model` go, and return the model of a bundle, made as fast as `model` was."""
    for weight in model.parameters():
        weight.data = weight.data.new_empty(0)
        weight.grad = None
    memory.trim()
    fresh = as_trained(target, width, built.attention, device)
    for name, weight in fresh.named_parameters():
        weight.requires_grad = name in built.trainable.names
    quicken(fresh, speed, built.precision, built.packed, device)
    return fresh


def _all_scores(model: nn.Module, built: Built, run: Run, examples: Sequence[Example]) -> list[Tensor]:
    if not run.sharded:
        _align(model)
    with torch.no_grad(), compute(built.precision, run.accelerator.device):
        return [_scores(model, run, example) for example in examples]


def _align(model: nn.Module) -> None:
    """Copy weights that a file read in place begins at an odd byte: kernels round otherwise there."""
    for weight in model.parameters():
        if weight.data_ptr() % _ALIGNMENT:
            weight.data = weight.data.clone()


def _scores(model: nn.Module, run: Run, example: Example) -> Tensor:
    """Return all scores of one row that the loss reads, flat, float32."""
    batch = run.placed(run.objective.collate([example], run.packed))
    outputs = run.objective.outputs(model, batch)
    return torch.cat([outputs[name].float().flatten() for name in sorted(outputs)])


def _answers(target: Target, rows: Rows, run: Run, width: Width | None, count: int) -> tuple[int, int]:
    """Write answers to distinct evaluation prompts; return how many, and how many ended by themselves."""
    if rows.format.name == "text" or count == 0 or not heads.writes(rows.objective.head):
        return 0, 0
    longest = max(int((example.labels >= 0).sum()) for example in rows.evaluation)
    limit = rows.checkpoint.max_positions or math.inf
    apart = rows.objective.head.task == "seq2seq_lm"
    # One that leaves no room for an answer could not stop by itself; an encoder-decoder reads and writes apart.
    prompts = [ids for ids in _distinct_prompts(rows, count) if (1 if apart else len(ids)) + longest <= limit]
    if not prompts:
        return 0, 0
    room = min(limit - (1 if apart else len(ids)) for ids in prompts)
    settings = DecodingSettings(max_new_tokens=int(min(2 * longest + 16, room)))
    memory.trim()
    model: Any = writing(target, width, run.precision, run.accelerator.device)
    written = [
        generation
        for start in range(0, len(prompts), _SIDE_BY_SIDE)
        for generation in decode(model, prompts[start : start + _SIDE_BY_SIDE], settings, target.eos_ids)
    ]
    return len(written), sum(generation.finish_reason == "eos" for generation in written)


def _distinct_prompts(rows: Rows, count: int) -> list[list[int]]:
    """Return the ids of the first `count` distinct evaluation prompts."""
    if rows.objective.head.task == "seq2seq_lm":
        distinct = dict.fromkeys(tuple(example.ids.tolist()) for example in rows.evaluation)
        return [list(ids) for ids in distinct][:count]
    encoder = TextEncoder(rows.target.tokenizer, rows.style)
    if rows.format.name == "chat":
        conversations = [row.fields["messages"] for row in rows.evaluation_rows[:count]]
        # The conversation up to its last assistant turn, which the model is to write itself.
        return [encoder.chat_prompt(messages[:-1]) for messages in conversations if messages[-1]["role"] == "assistant"]
    texts = list(dict.fromkeys(row.fields["prompt"] for row in rows.evaluation_rows))
    return encoder.prompts(texts[:count])


def _weights_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _base_bytes(rows: Rows) -> int:
    from lorakit.checkpoints.weights import weight_files

    return sum(file.stat().st_size for file in weight_files(rows.checkpoint.folder))
