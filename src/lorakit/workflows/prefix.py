"""Whether the frozen lower part of a run is computed once (`fast/frontier.py`), and why not where it is not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from lorakit.data.batching import FixedPlan
from lorakit.fast.frontier import Frontier
from lorakit.fast.pooling import unwrapped
from lorakit.methods.trainable import blocks
from lorakit.training import memory

if TYPE_CHECKING:
    from lorakit.recipe import Recipe
    from lorakit.training.run import Run
    from lorakit.workflows.preparing import Rows

FOLDER = "frontier"
"""Name of the folder inside a run folder, for as long as the run lasts."""


def frontier_of(run: Run, recipe: Recipe, rows: Rows) -> tuple[Frontier | None, str]:
    """Return the frontier of a run, and a line about it; None where nothing is frozen or it would not pay.

    Args:
        run: Put together, on its device, without a frontier.
        recipe: As it runs.
        rows: The rows of the run.
    """
    frozen = _frozen(run.bare_model, rows)
    if not frozen:
        return None, ""
    reason = _unfit(run, recipe, rows)
    if reason:
        return None, f"the {len(frozen)} frozen blocks are computed in every epoch: {reason}"
    plan = run.plan
    assert isinstance(plan, FixedPlan)
    examples = [*plan.examples, *run.evaluation]
    size = Frontier.bytes_for(examples, _width(run.bare_model))
    room = min(recipe.speed.cache_gb * 1e9, 0.9 * shutil.disk_usage(run.folder).free)
    if size > room:
        return None, (
            f"the {len(frozen)} frozen blocks are computed in every epoch: their output would take "
            f"{size / 1e9:.1f} GB, and there is room for {room / 1e9:.1f} (speed.cache_gb)"
        )
    frontier = Frontier(frozen, examples, _width(run.bare_model), run.folder / FOLDER)
    reason = _proved(run, frontier, examples[0])
    if reason:
        remove(run.folder)
        return None, f"the {len(frozen)} frozen blocks are computed in every epoch: {reason}"
    # States are found by the identity of their examples; those that lie in files are made anew whenever they are read.
    run.plan, run.evaluation = replace(plan, examples=examples[: len(plan.examples)]), examples[len(plan.examples) :]
    told = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    return frontier, (
        f"the {len(frozen)} frozen blocks are computed once: what comes out of them, {told}, is kept in "
        f"{run.output / FOLDER} until the end of the run"
    )


def remove(folder: Path) -> None:
    """Delete what a frontier has stored in a run folder."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _frozen(model: nn.Module, rows: Rows) -> list[nn.Module]:
    """Return the blocks below the lowest one in which something learns; none of encoder-decoders and unlisted types."""
    family = rows.checkpoint.family
    # Where the blocks of a type outside the table cannot be told, it trains all the same.
    if family.kind == "encoder_decoder" or not family.listed:
        return []
    return list(takewhile(lambda block: not _learns(block), blocks(unwrapped(model), family)))


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def _width(model: nn.Module) -> int:
    return int(unwrapped(model).config.hidden_size)


def _unfit(run: Run, recipe: Recipe, rows: Rows) -> str:
    """Return what speaks against it before anything is computed, or ""."""
    if not recipe.speed.frontier:
        return "speed.frontier is off"
    if not rows.objective.steady:
        return f"{rows.objective.name} hides other words in each epoch"
    if not isinstance(run.plan, FixedPlan):
        return "rows are streamed"
    if run.accelerator.num_processes > 1:
        return "several processes share the rows"
    if memory.recomputes(run.bare_model):
        return "train.gradient_checkpointing computes blocks twice"
    if run.plan.total() <= len(run.plan.epoch(0)):
        return "no row is read twice"
    return ""


def _proved(run: Run, frontier: Frontier, example: object) -> str:
    """Hold a replayed row against a computed one; random numbers stay as they were."""
    batch = run.placed(run.objective.collate([example], run.packed))  # type: ignore[list-item]
    keyed = replace(batch, keys=frontier.keys([example]))  # type: ignore[list-item]

    def forward() -> torch.Tensor:
        with run.computing():
            outputs = run.objective.outputs(run.bare_model, batch)
        return torch.cat([outputs[name].flatten() for name in sorted(outputs)])

    with torch.random.fork_rng(devices=[]):
        return frontier.proves_itself(forward, keyed, run.bare_model)
