"""From slopes to a step: gradients of micro-batches and processes added up, bounded, and taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.checkpoints import shards


class Updates:
    """The gradient of a step, and what is done with it, where torch's optimizer knows the weights: whole ones on each
    process, or parts that torch cut."""

    def __init__(self, weights: Sequence[nn.Parameter], optimizer: Any, accelerator: Any, clip: float) -> None:
        self._weights, self._optimizer, self._accelerator, self._clip = weights, optimizer, accelerator, clip

    def add(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of `loss`; `last`: of the last micro-batch of the step."""
        self._accelerator.backward(loss)

    def bounded(self) -> Tensor:
        """Bound the norm of the gradient over all weights and processes, and return what it was before."""
        return shards.whole(torch.nn.utils.clip_grad_norm_(self._weights, self._clip))

    def reaches(self, weight: nn.Parameter) -> bool:
        """Whether a gradient was computed for `weight`."""
        return weight.grad is not None

    def take(self) -> None:
        """Change the weights."""
        self._optimizer.step()

    def clear(self) -> None:
        """Let the gradient go."""
        self._optimizer.zero_grad(set_to_none=True)
