"""What happens when memory runs out: less is computed at once, and the step is taken again with the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lorakit.errors import TrainingError
from lorakit.training import memory
from lorakit.training import state as states
from lorakit.training.events import NoteEvent
from lorakit.training.run import Run
from lorakit.types import Example

Result = TypeVar("Result")

_SAID = ("can't allocate memory", "not enough memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says, in an ordinary RuntimeError, when a processor's memory is full, or what a GPU's libraries need."""


def with_room(run: Run, examples: Sequence[Example], attempt: Callable[[], Result]) -> Result:
    """Return what `attempt` returns; where memory runs out, halve the micro-batch and try again.

    The cut into micro-batches changes no number, so the step is the same; its random numbers begin anew. Where a single
    row is too much, the insides of blocks are computed again in the backward pass, unless the recipe decides that.

    Args:
        run: Its `budget` is lowered for good.
        examples: Rows of the step, or of an evaluation.
        attempt: Computes them in micro-batches of `run.budget` tokens, and leaves no gradient behind when it fails.

    Raises:
        TrainingError: A single row does not fit, or several processes share the step and would part ways.
    """
    longest = max(len(example) for example in examples)
    while True:
        random = states.random_state()
        try:
            return attempt()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_full(error):
                raise
            refused = _refusal(run, longest)
            if refused:
                raise TrainingError(refused) from error
        # Outside the handler, which holds what the failed attempt had in memory.
        states.set_random_state(random)
        told = _take_less(run, longest)
        if run.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        run.reporters.report(NoteEvent(f"memory was full; from now on {told}, which changes no result"))


def _take_less(run: Run, longest: int) -> str:
    if run.budget > longest:
        run.budget = max(longest, run.budget // 2)
        return f"{run.budget:,} tokens are computed at once"
    memory.recompute(run.bare_model)
    return "blocks are computed again in the backward pass (train.gradient_checkpointing, about a third more time)"


def _may_recompute(run: Run) -> bool:
    """Whether blocks may be computed again; not where states of frozen ones are kept, which hooks read off them."""
    return run.train.gradient_checkpointing == "auto" and run.frontier is None and memory.recomputable(run.bare_model)


def _is_full(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _SAID)


def _refusal(run: Run, longest: int) -> str:
    if run.accelerator.num_processes > 1:
        return (
            f"memory is full with {run.budget:,} tokens at once, and several processes cannot lower that one by one. "
            f"Go on with fewer: --resume --set train.micro_batch_tokens={max(longest, run.budget // 2)}"
        )
    if run.budget <= longest and not _may_recompute(run):
        cure = "" if memory.recomputes(run.bare_model) else " set train.gradient_checkpointing=true,"
        return (
            f"memory is full with a single row of {longest:,} tokens. Lower data.max_length,{cure} or take a smaller "
            "model or method lora."
        )
    return ""
