"""Whether the frozen lower part of a run is computed once (`fast/frontier.py`), and why not where it is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lorakit.data.batching import FixedPlan
from lorakit.fast.frontier import Frontier, Stretch, examine
from lorakit.fast.pooling import unwrapped
from lorakit.fast.states import Layout, States, lay_out
from lorakit.methods.trainable import stacks
from lorakit.training import memory
from lorakit.types import Example
from lorakit.workflows.launching import from_first

if TYPE_CHECKING:
    from lorakit.recipe import Recipe
    from lorakit.training.run import Run
    from lorakit.workflows.preparing import Rows

FOLDER = "frontier"
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
"""Name of the folder inside a run folder, for as long as the run lasts."""


def frontier_of(run: Run, recipe: Recipe, rows: Rows) -> tuple[Frontier | None, str]:
    """Return the frontier of a run, and a line about it; None where nothing is frozen or it would not pay.

    All processes come to the same answer, the first one's where the disk decides.

    Args:
        run: Put together, on its device, without a frontier.
        recipe: As it runs.
        rows: The rows of the run.
    """
    examples = [*(run.plan.examples if isinstance(run.plan, FixedPlan) else ()), *run.evaluation]
    stretches = _frozen(run.bare_model, rows, examples)
    total = sum(stretch.blocks for stretch in stretches)
    if not stretches:
        return None, ""
    reason = _unfit(run, recipe, rows)
    if reason:
        return None, _computed(total, reason)
    device = run.accelerator.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        frontier, reason = _proved(run, recipe, stretches, examples)
    if frontier is None:
        return None, _computed(total, reason)
    # States are found by the identity of their examples; those that lie in files are made anew whenever they are read.
    assert isinstance(run.plan, FixedPlan)
    learned = len(run.plan.examples)
    run.plan, run.evaluation = replace(run.plan, examples=examples[:learned]), examples[learned:]
    once = sum(stretch.blocks for stretch in frontier.stretches)
    size, unit = next((size, unit) for size, unit in _UNITS if frontier.bytes >= size or unit == "kB")
    told = f"{frontier.bytes / size:.1f} {unit}"
    rest = f"; {_computed(total - once, reason)}" if reason else ""
    return frontier, (
        f"{_blocks(once)} computed once: what comes out of them, {told}, is kept in "
        f"{run.output / FOLDER} until the end of the run{rest}"
    )


def _proved(
    run: Run, recipe: Recipe, stretches: Sequence[Stretch], examples: Sequence[Example]
) -> tuple[Frontier | None, str]:
    """Return the frontier once a row read again gives the scores of a computed one, and what is left out, and why."""
    batch = run.placed(run.objective.collate(examples[:1], run.packed))

    def forward() -> Tensor:
        with run.computing():
            outputs = run.objective.outputs(run.bare_model, batch)
        return torch.cat([outputs[name].flatten() for name in sorted(outputs)])

    known, reason = examine(stretches, forward, run.bare_model)
    if not known:
        return None, reason
    layouts, folder = [each.layout for each in known], run.folder / FOLDER
    unmade = _unmade(folder, layouts, recipe) if run.accelerator.is_main_process else ""
    if unmade := from_first(run.accelerator, unmade):
        return None, unmade
    frontier = Frontier(known, examples, States(folder, layouts))
    keyed = replace(batch, keys=frontier.keys(examples[:1]))
    if differs := from_first(run.accelerator, frontier.differs(forward, keyed, run.bare_model)):
        remove(run.folder)
        return None, differs
    return frontier, reason


def _computed(blocks: int, reason: str) -> str:
    return f"{_blocks(blocks)} computed in every epoch: {reason}"


def _blocks(count: int) -> str:
    return "the frozen block is" if count == 1 else f"the {count} frozen blocks are"


def _unmade(folder: Path, layouts: Sequence[Layout], recipe: Recipe) -> str:
    """Make the files of the states; return why there is no room for them, or ""."""
    size = sum(layout.bytes for layout in layouts)
    room = min(recipe.speed.cache_gb * 1e9, 0.9 * shutil.disk_usage(folder.parent).free)
    if size > room:
        return f"their output would take {size / 1e9:.1f} GB, and there is room for {room / 1e9:.1f} (speed.cache_gb)"
    try:
        lay_out(folder, layouts)
    except OSError as error:
        remove(folder.parent)
        return f"their output would take {size / 1e9:.1f} GB, and {folder} cannot hold it ({error.strerror})"
    return ""


def remove(folder: Path) -> None:
    """Delete what a frontier has stored in a run folder."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _frozen(model: nn.Module, rows: Rows, examples: Sequence[Example]) -> list[Stretch]:
    """Return what is frozen below the lowest weight that learns; nothing of types outside the table.

    Of an encoder-decoder whose encoder is frozen as a whole these are the encoder and the lower blocks of the decoder;
    else a decoder reads other states in each epoch.
    """
    family = rows.checkpoint.family
    # Where the blocks of a type outside the table cannot be told, it trains all the same.
    if not family.listed:
        return []
    inner = unwrapped(model)
    read = tuple(len(example.ids) for example in examples)
    lower, *upper = stacks(inner, family)
    if family.kind != "encoder_decoder":
        return _lowest("blocks", lower, read)
    encoder = inner.base_model.encoder
    if _learns(encoder):
        return _lowest("encoder", lower, read)
    # A classifier's decoder reads the text once more.
    written = tuple(len(example.ids if example.target is None else example.target) for example in examples)
    above = [stretch for stack in upper for stretch in _lowest("decoder", stack, written)]
    return [Stretch("encoder", (encoder,), read, len(lower)), *above]


def _lowest(name: str, stack: Iterable[nn.Module], lengths: tuple[int, ...]) -> list[Stretch]:
    frozen = tuple(takewhile(lambda block: not _learns(block), stack))
    return [Stretch(name, frozen, lengths, len(frozen))] if frozen else []


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def _unfit(run: Run, recipe: Recipe, rows: Rows) -> str:
    """Return what speaks against it before anything is computed, or ""."""
    if not recipe.speed.frontier:
        return "speed.frontier is off"
    if not rows.objective.steady:
        return f"{rows.objective.name} hides other words in each epoch"
    if not isinstance(run.plan, FixedPlan):
        return "rows are streamed"
    if run.accelerator.num_processes > 1:
        if run.sharded:
            return "its weights are spread over several processes"
        if os.environ.get("LOCAL_WORLD_SIZE") != str(run.accelerator.num_processes):
            return "the processes are not all on one machine"
    config = unwrapped(run.bare_model).config
    if any(getattr(config, f"{side}layerdrop", 0.0) for side in ("", "encoder_", "decoder_")):
        return "whole blocks are left out at random (layerdrop)"
    if memory.recomputes(run.bare_model):
        return "train.gradient_checkpointing computes blocks twice"
    if run.plan.total() <= len(run.plan.epoch(0)):
        return "no row is read twice"
    return ""
