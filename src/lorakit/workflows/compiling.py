"""Whether the blocks of a run are compiled (`fast/compiled.py`), and why not where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lorakit.errors import TrainingError
from lorakit.fast.pooling import unwrapped
from lorakit.methods.trainable import stacks
from lorakit.training import memory

if TYPE_CHECKING:
    from lorakit.recipe import Recipe
    from lorakit.training.run import Run
    from lorakit.workflows.building import Built
    from lorakit.workflows.preparing import Rows

_LEAST_OPERATIONS = 2e16
"""Of a run, for compiling to save more time than it takes: a minute or so of a GPU that computes 3e14 a second."""
_ROWS = 2
"""Rows whose gradients are compared."""


def compiled_of(run: Run, recipe: Recipe, rows: Rows, built: Built) -> tuple[tuple[nn.Module, ...], str]:
    """Compile the blocks of a run; return those that are, and a line about it; none where it is not to be done.

    Args:
        run: Put together, on its device, its frontier known: blocks that it skips stay as they are.
        recipe: As it runs.
        rows: The rows of the run.
        built: Its model.
    """
    asked = recipe.speed.compile
    on_gpu = run.accelerator.device.type == "cuda"
    # A processor gains little (benchmarks/compiled_blocks.py), and short runs end before they gain anything.
    if asked is False or (asked == "auto" and (not on_gpu or _operations(run, rows, built) < _LEAST_OPERATIONS)):
        return (), ""
    try:
        found = [block for stack in stacks(unwrapped(run.bare_model), rows.checkpoint.family) for block in stack]
    except TrainingError:
        found = []
    skipped = [module for stretch in run.frontier.stretches for module in stretch.modules] if run.frontier else []
    above = {id(part) for module in skipped for part in module.modules()}
    blocks = tuple(block for block in found if id(block) not in above)
    reason = _unfit(run, rows, blocks, on_gpu, getattr(recipe.method, "quantize_base", None))
    if not reason:
        # Not imported before it is needed: torch's compiler takes seconds.
        from lorakit.fast import compiled

        with torch.random.fork_rng(devices=[run.accelerator.device] if on_gpu else []):
            reason = compiled.take(blocks, lambda: _slopes(run), getattr(torch, run.precision))
    if reason:
        return (), f"blocks are not compiled: {reason}"
    return blocks, f"{len(blocks)} blocks are compiled, which the first steps take longer for"


def release(run: Run) -> None:
    """Let the blocks of a run compute plainly again, as they are read back."""
    if run.compiled:
        from lorakit.fast import compiled

        compiled.release(run.compiled)


def _unfit(run: Run, rows: Rows, blocks: Sequence[nn.Module], on_gpu: bool, width: str | None) -> str:
    """Return what speaks against it before anything is compiled, or ""."""
    if run.sharded:
        return "weights are spread over several processes"
    if width is not None:
        return f"a base in {width} is widened by kernels that no compiler sees into"
    if not blocks:
        return "none of them can be told, or none computes in each epoch"
    if run.packed and rows.checkpoint.family.kind == "encoder_decoder":
        return "packed rows of an encoder-decoder have a bias of another size at each step"
    if run.packed and not on_gpu and memory.recomputes(run.bare_model):
        return "packed rows are attended outside of compiled code on a processor, which nothing is computed twice of"
    return ""


def _operations(run: Run, rows: Rows, built: Built) -> float:
    """Return about how many operations the products of a run take: four a weight and token where most are frozen."""
    mean = rows.report.tokens / max(1, rows.report.rows)
    step = rows.tokens_per_step or (rows.rows_per_step or 1) * mean
    share = built.trainable.trained / built.base_parameters
    return (4 + 2 * min(1.0, share)) * built.base_parameters * step * run.plan.total()


def _slopes(run: Run) -> list[Tensor]:
    """Return the gradients of some rows, with the same random numbers each time."""
    model = run.bare_model
    batch = run.placed(run.objective.collate(run.evaluation[:_ROWS], run.packed, 0))
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    trained = model.training
    model.train()
    try:
        torch.manual_seed(0)
        with run.computing():
            loss = torch.stack(list(run.objective.loss_sums(model, batch).values())).sum()
        found = torch.autograd.grad(loss, learned, allow_unused=True)
    finally:
        model.train(trained)
    return [slope for slope in found if slope is not None]
