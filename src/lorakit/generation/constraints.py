"""What a checkpoint forbids and forces: BART begins with ``<s>``, mBART with its language, Marian writes no padding."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    PreTrainedModel,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)


class Constraints:
    """Rules of an encoder-decoder's generation_config.json, in transformers' own order; a decoder has none.

    Honoured are `bad_words_ids`, `forced_bos_token_id`, `forced_eos_token_id`, `suppress_tokens` and
    `begin_suppress_tokens`, which say how the model writes. `min_length`, `no_repeat_ngram_size` and the number of
    beams are tastes of one task, often another than the one trained: they are not honoured.

    Args:
        model: Its generation_config is read.
        longest: Tokens of the longest answer; a forced end stands there.
        eos_ids: Ids that end an answer; they are never bad words.
    """

    def __init__(self, model: PreTrainedModel, longest: int, eos_ids: Collection[int]) -> None:
        self._rules = LogitsProcessorList()
        config: Any = model.generation_config
        if not model.config.is_encoder_decoder or config is None:
            return
        device: Any = model.device
        if config.bad_words_ids is not None:
            self._rules.append(NoBadWordsLogitsProcessor(config.bad_words_ids, list(eos_ids) or None))
        if config.forced_bos_token_id is not None:
            self._rules.append(ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id))
        if config.forced_eos_token_id is not None:
            # The decoder's start counts as written.
            self._rules.append(ForcedEOSTokenLogitsProcessor(1 + longest, config.forced_eos_token_id, device))
        if config.suppress_tokens is not None:
            self._rules.append(SuppressTokensLogitsProcessor(config.suppress_tokens, device))
        if config.begin_suppress_tokens is not None:
            first = 1 if config.forced_bos_token_id is None else 2
            self._rules.append(SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, first, device))

    def apply(self, scores_BV: Tensor, written: Sequence[Sequence[int]]) -> Tensor:
        """Return scores, shape (B, V), in which what is forbidden is minus infinity.

        Args:
            scores_BV: Logits or log-probabilities. Not modified.
            written: What the decoder has read so far, its start included, of equal length.
        """
        if not self._rules:
            return scores_BV
        return self._rules(torch.tensor([list(ids) for ids in written], device=scores_BV.device), scores_BV)
