"""What objectives share that learn the next token, of decoders and of encoder-decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lorakit.objectives.base import Shared, hits, word_loss, word_loss_sum, word_scores
from lorakit.types import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn


class NextToken(Shared):
    """Next-token prediction (Radford et al. 2018, equation 1), summed over labelled tokens."""

    label_logits_only: bool

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return the number of labelled tokens."""
        return {"tokens": float(len(batch.targets["targets_L"]))}

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``logits_LV``, the scores of each labelled token."""
        return {"logits_LV": word_scores(model, batch, self.label_logits_only, use_cache=False)[0]}

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy in nats summed over labelled tokens, shape (), float32."""
        return {"tokens": word_loss(outputs["logits_LV"], batch.targets["targets_L"])}

    def loss_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return `losses` of `outputs`, of a long batch without its scores being held together."""
        return {"tokens": word_loss_sum(model, batch, self.label_logits_only, use_cache=False)}

    def tallies(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, tuple[float, float]]:
        """Return how many labelled tokens are the most probable ones."""
        return {"accuracy": hits(outputs["logits_LV"], batch.targets["targets_L"])}
