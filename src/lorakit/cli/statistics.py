"""What stands behind text that was written: how much, how fast, why it ended, and which fast paths were taken."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorakit.data.readers.faults import counted

if TYPE_CHECKING:
    from lorakit.workflows.completions import Completion
    from lorakit.workflows.speeding import FastPaths

ENDINGS = {
    "eos": "end of sequence",
    "stop": "stop text",
    "length": "--max-new-tokens reached",
    "context": "the model's positions are full",
}


class Statistics:
    """Counts from now on, for one line when text has been written."""

    def __init__(self, paths: FastPaths) -> None:
        self._paths = paths
        self._before = self._counts()
        self._begun = time.perf_counter()

    def line(self, completions: Sequence[Completion]) -> str:
        """Return tokens, speed, why the answers ended, and fast paths."""
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        tokens = sum(len(completion.ids) for completion in completions)
        reasons = Counter(ENDINGS[completion.finish_reason] for completion in completions)
        several = len(completions) > 1
        ending = ", ".join(f"{reason} ({count:,})" if several else reason for reason, count in reasons.most_common())
        parts = [counted(len(completions), "answer")] if several else []
        parts += [counted(tokens, "token"), f"{tokens / seconds:,.0f} tokens/s", f"stop: {ending}"]
        return " · ".join([*parts, *self._fast()])

    def _fast(self) -> list[str]:
        drafted, kept, steps = (now - before for now, before in zip(self._counts(), self._before, strict=True))
        drafts = [f"{kept:,} of {counted(drafted, 'drafted token')} kept ({kept / drafted:.0%})"] if drafted else []
        captured = [counted(steps, "captured step")] if steps else []
        return [*self._paths.told, *drafts, *captured]

    def _counts(self) -> tuple[int, int, int]:
        """Return tokens drafted, those of them that were kept, and captured steps."""
        drafter, steps = self._paths.drafter, self._paths.steps
        drafts = (drafter.drafted, drafter.kept) if drafter is not None else (0, 0)
        return (*drafts, steps.taken if steps is not None else 0)
