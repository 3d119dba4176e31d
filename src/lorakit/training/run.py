"""One run: what the loop needs, put together once and handed around."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lorakit.data.batching import Plan, micro_batches, share
from lorakit.fast.frontier import Frontier
from lorakit.training.precision import Precision, compute
from lorakit.training.reporters import Reporters
from lorakit.training.settings import OptimSettings, TrainSettings
from lorakit.training.signals import Signals
from lorakit.training.updates import Updates
from lorakit.training.zero import Zero
from lorakit.types import Batch, Example, Objective


@dataclass
class Run:
    """The parts of one training run on this process."""

    folder: Path
    """Written to while training."""
    output: Path
    """Where the run ends up, as the user named it."""
    model: nn.Module
    """As `accelerator.prepare` returned it."""
    objective: Objective
    plan: Plan
    evaluation: Sequence[Example]
    optimizer: Any
    accelerator: Any
    optim: OptimSettings
    train: TrainSettings
    learning_rate: float
    """Peak of the schedule."""
    packed: bool
    """Whether rows lie end to end; otherwise in buckets of similar length, padded."""
    budget: int
    """Tokens computed at once on this process."""
    precision: Precision
    reporters: Reporters
    signals: Signals = field(default_factory=Signals)
    per_token: int = 0
    """Estimated bytes of one more token computed at once (`training/memory.py`)."""
    frontier: Frontier | None = None
    """Where frozen lower blocks are computed once."""
    compiled: tuple[nn.Module, ...] = ()
    """Blocks that are compiled (`fast/compiled.py`)."""
    sharded: bool = False
    """Whether each process holds a part of what learns (`training/sharding.py`, `training/zero.py`)."""

    @property
    def bare_model(self) -> nn.Module:
        """The model without the wrapper of several processes."""
        # Not Accelerate's way to it, which loads DeepSpeed wherever that is installed.
        wrapped = isinstance(self.model, DistributedDataParallel) or isinstance(self.optimizer, Zero)
        return cast(nn.Module, self.model.module) if wrapped else self.model

    @property
    def updates(self) -> Updates:
        """What becomes of the gradients of a step."""
        if isinstance(self.optimizer, Zero):
            return self.optimizer
        learned = [weight for weight in self.model.parameters() if weight.requires_grad]
        return Updates(learned, self.optimizer, self.accelerator, self.optim.clip)

    def batches(self, examples: Sequence[Example], epoch: int | None = None) -> list[tuple[Batch, float]]:
        """Return this process's part of `examples` as micro-batches, each with the weight of its losses and counts.

        Random masks are those of `epoch`, from 0; without one, those of evaluations.

        The weight is 1, but 0 for a row that another process computes too: with fewer rows than processes, one without
        rows gets such a row, because all have to take part in the exchange of sums and gradients. Where these lie in
        parts, all exchange them after each micro-batch, so that all need equally many.
        """
        mine = share(examples, self.accelerator.process_index, self.accelerator.num_processes)
        # An evaluation holds all scores of its labels, and no states for a backward pass.
        budget = self.budget if epoch is not None else -(-self.budget // 4)
        parts = micro_batches(mine, budget, self.packed) if mine else []
        idle = [[min(examples, key=len)]] * (self._most(len(parts)) - len(parts))
        weights = [1.0] * len(parts) + [0.0] * len(idle)
        parts += idle
        batches = [self.objective.collate(part, self.packed, epoch) for part in parts]
        if self.frontier is not None:
            batches = [
                replace(batch, keys=self.frontier.keys(part)) if weight else batch
                for batch, part, weight in zip(batches, parts, weights, strict=True)
            ]
        return list(zip(batches, weights, strict=True))

    def _most(self, count: int) -> int:
        """Return how many micro-batches this process takes that has `count` of its own."""
        if not self.sharded:
            return max(1, count)
        counts: Tensor = self.accelerator.gather(torch.tensor([count], device=self.accelerator.device))
        return int(counts.max())

    def placed(self, batch: Batch) -> Batch:
        """Return `batch` on this process's device."""
        device = self.accelerator.device

        def there(value: Tensor) -> Tensor:
            # From pinned memory a GPU takes it without the processor waiting for all that was launched before.
            return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)

        return replace(
            batch,
            inputs={name: there(value) for name, value in batch.inputs.items()},
            targets={name: there(value) for name, value in batch.targets.items()},
        )

    def reading(self, batch: Batch) -> AbstractContextManager[object]:
        """Return the context of a forward pass over `batch`: frozen blocks are computed, or their states read again."""
        return self.frontier.around(batch) if self.frontier is not None and batch.keys else nullcontext()

    def computing(self) -> AbstractContextManager[object]:
        """Return the context of forward passes."""
        return compute(self.precision, self.accelerator.device)

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums of `values` over all processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        # gloo and NCCL both add float64; MPS has no float64 and no second process.
        summed: Tensor = self.accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=self.accelerator.device), reduction="sum"
        )
        return summed.tolist()
