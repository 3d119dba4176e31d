"""Drafts: the next few tokens are proposed at little cost, and the model checks all of them in one pass.

To read six tokens costs a model about what one costs, since its weights are read once (Leviathan et al. 2023,
arXiv:2211.17192). A draft is kept as far as the model itself takes the same tokens: the most probable ones or, where
tokens are drawn, those that the answer's own random numbers point at. So the text is the one without drafts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.fast.products import Rounded

LONGEST = 5
"""Tokens of a draft, at most: with the one before them they are the six rows that cost a processor as much as one."""

Choice = Callable[[Tensor, Sequence[int]], int]
"""Takes logits (1, V) and the draft so far; returns the token that the answer would go on with."""


class Drafter(ABC):
    """Proposes what comes next in one answer."""

    drafted = 0
    """Tokens proposed so far."""
    kept = 0
    """Those that the model took too."""

    @abstractmethod
    def draft(self, context: Any, read: Sequence[int], count: int, choose: Choice) -> list[int]:
        """Propose at most `count` tokens.

        Args:
            context: What the model has read of the answer (`context.Context`), all but the last token; left as it is.
            read: The source of an encoder-decoder, the prompt and the answer so far.
            count: From 1 to `LONGEST`.
            choose: How the answer takes a token.
        """


class PromptLookup(Drafter):
    """What followed the last words where they stood before, in the prompt or in the answer (prompt look-up decoding).

    Answers that quote their prompt, such as summaries and corrections, come several tokens at a time.
    """

    LONGEST_MATCH = 3

    def draft(self, context: Any, read: Sequence[int], count: int, choose: Choice) -> list[int]:
        """Propose what followed the latest of the longest matches of the last three tokens or fewer."""
        ids = list(read)
        for size in range(min(self.LONGEST_MATCH, len(ids) - 1), 0, -1):
            tail = ids[-size:]
            for end in range(len(ids) - 1, size - 1, -1):
                if ids[end - size : end] == tail:
                    return ids[end : end + count]
        return []


class RoundedDrafts(Drafter):
    """What the model writes with weights in 8 bits, a quarter of the bytes to read.

    The rounded weights are made once an answer has become long enough to repay that. Where they seldom propose what the
    exact ones take, drafts are given up.
    """

    WARM = 32
    """Tokens after which drafts begin: weights are rounded in the time of about 60 tokens."""
    TRIAL, LEAST = 50, 0.4
    """After so many drafted tokens, the least share of kept ones with which drafts save time."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._rounded: Rounded | None = None
        self._written = 0

    def draft(self, context: Any, read: Sequence[int], count: int, choose: Choice) -> list[int]:
        """Write `count` tokens with the rounded weights."""
        self._written += 1
        unfit = self.drafted >= self.TRIAL and self.kept < self.LEAST * self.drafted
        if unfit or self._written <= self.WARM:
            return []
        if self._rounded is None:
            self._rounded = Rounded(self._model)
        drafts: list[int] = []
        with self._rounded.instead():
            for _ in range(count):
                last = drafts[-1] if drafts else read[-1]
                logits_1V = context.read(torch.tensor([[last]]))[:, -1]
                drafts.append(choose(logits_1V, drafts))
        context.forget(len(drafts))
        return drafts
