"""How the next token is chosen from logits: pure functions, a row at a time in meaning, a batch at a time in work."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from lorakit.generation.settings import DecodingSettings

LEAST_TEMPERATURE = 1e-30
"""A lower one is read as this: float32 would round it to 0, and the draw is the most probable token either way."""


def penalise_repetition(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Make tokens that were seen before less probable (Keskar et al. 2019, arXiv:1909.05858, section 4.1).

    A positive logit is divided by `penalty` and a negative one multiplied by it, so that both move down.

    Args:
        logits_BV: Logits or log-probabilities, shape (B, V). Not modified.
        seen_BV: Which tokens stand in the row's prompt or answer, shape (B, V), bool.
        penalty: Above 0; 1 changes nothing.
    """
    lowered_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, lowered_BV, logits_BV)


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Set all but the k largest logits of each row to minus infinity; equals of the k-th stay too."""
    smallest_B1 = logits_BV.topk(min(k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < smallest_B1, -torch.inf)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the fewest most probable tokens whose probabilities sum to at least p (nucleus sampling).

    Holtzman et al. 2020, arXiv:1904.09751, section 3.1. The most probable token always stays.
    """
    # Sorted upwards, a token falls out while it and all less probable ones together hold at most 1 - p.
    ascending_BV, order_BV = logits_BV.sort(dim=-1)
    dropped_BV = ascending_BV.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    dropped_BV[:, -1] = False
    return logits_BV.masked_fill(dropped_BV.scatter(1, order_BV, dropped_BV), -torch.inf)


def keep_min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as probable as the most probable one (Nguyen et al. 2024, arXiv:2407.01082)."""
    probabilities_BV = logits_BV.softmax(dim=-1)
    return logits_BV.masked_fill(probabilities_BV < p * probabilities_BV.amax(dim=-1, keepdim=True), -torch.inf)


def narrow(logits_BV: Tensor, settings: DecodingSettings) -> Tensor:
    """Apply temperature, top-k, top-p and min-p, in this order, to the logits of a draw, shape (B, V)."""
    # Below the largest all are negative, so that a division by next to nothing cannot overflow to plus infinity.
    logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / max(settings.temperature, LEAST_TEMPERATURE)
    if settings.top_k is not None:
        logits_BV = keep_top_k(logits_BV, settings.top_k)
    if settings.top_p is not None:
        logits_BV = keep_top_p(logits_BV, settings.top_p)
    if settings.min_p is not None:
        logits_BV = keep_min_p(logits_BV, settings.min_p)
    return logits_BV


class Draws:
    """The random numbers of one answer: they depend on the seed, the prompt's number and the sample's alone."""

    def __init__(self, seed: int, prompt: int, sample: int) -> None:
        self._stream = random.Random(f"{seed} {prompt} {sample}")
        self._drawn: list[float] = []

    def __getitem__(self, place: int) -> float:
        """Return the number in [0, 1) that chooses the token at `place`, from 0."""
        while len(self._drawn) <= place:
            self._drawn.append(self._stream.random())
        return self._drawn[place]


def draw(logits_BV: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    Unlike a draw from one generator for the whole batch, a row's token depends on its own number alone.

    Args:
        logits_BV: Shape (B, V); minus infinity is never drawn.
        uniforms: One number in [0, 1) a row.

    Returns:
        Token ids, shape (B,), int64.
    """
    cumulative_BV = logits_BV.double().softmax(dim=-1).cumsum(dim=-1)
    wanted_B = torch.tensor(uniforms, dtype=torch.float64, device=logits_BV.device) * cumulative_BV[:, -1]
    # The product may round up to the sum itself, which no token reaches.
    wanted_B1 = torch.minimum(wanted_B, cumulative_BV[:, -1].nextafter(torch.zeros_like(wanted_B)))[:, None]
    return torch.searchsorted(cumulative_BV, wanted_B1, right=True).squeeze(1)
