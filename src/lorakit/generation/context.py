"""What a model has read so far: key-value cache, mask and positions of a batch whose rows may leave or multiply."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lorakit import families
from lorakit.errors import LorakitError


def position_limit(model: PreTrainedModel) -> int | None:
    """Return how many tokens the model can read, or None where nothing bounds it."""
    config = model.config
    family = families.of(config.model_type, tuple(config.architectures or (type(model).__name__,)), config.to_dict())
    return family.usable_positions(config.to_dict())


def check_length(prompt: Sequence[int], limit: int | None, which: str) -> None:
    """Raise LorakitError where a prompt has no ids, or more than the model reads; `which` begins the message."""
    if not prompt:
        raise LorakitError(f"{which} has no tokens; begin with the beginning-of-sequence token.")
    if limit is not None and len(prompt) > limit:
        raise LorakitError(
            f"{which} has {len(prompt)} tokens, but this model reads at most {limit}; "
            f"shorten it by at least {len(prompt) - limit} tokens."
        )


class Context:
    """B rows being read.

    Rows are padded at the left, whatever the tokenizer says, so that the next token of every row stands in the same
    column; mask and positions are given explicitly, so that a padded row reads exactly as it does alone.
    """

    continues = True
    """Whether an answer goes on from its prompt."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Lay `prompts` side by side; nothing is computed before `read_prompts`.

        Raises:
            LorakitError: A prompt is empty or longer than the model's positions.
        """
        assert not model.training, "text is written in eval mode: dropout would change it"
        self.model = model
        self.limit = position_limit(model)
        for number, prompt in enumerate(prompts, 1):
            check_length(prompt, self.limit, f"prompt {number}" if len(prompts) > 1 else "the prompt")
        self.before: list[list[int]] = [list(prompt) for prompt in prompts]
        """What stands before each answer, and is read with it."""
        self._cache = DynamicCache(config=model.config)
        taken = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in taken
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}

    def read_prompts(self) -> Tensor:
        """Read all prompts at once; returns the logits of each row's next token, shape (B, V), float32."""
        longest = max(map(len, self.before))
        ids_BT = torch.zeros((len(self.before), longest), dtype=torch.int64)
        mask_BT = torch.zeros_like(ids_BT)
        for row, prompt in enumerate(self.before):
            ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask_BT[row, longest - len(prompt) :] = 1
        self._mask_BT = mask_BT.to(self.model.device)
        return self._forward(ids_BT.to(self.model.device))

    def read(self, tokens_B: Tensor) -> Tensor:
        """Append one token to each row, shape (B,); returns the logits of the one after it, shape (B, V), float32."""
        self._mask_BT = torch.cat((self._mask_BT, self._mask_BT.new_ones(len(tokens_B), 1)), dim=1)
        return self._forward(tokens_B[:, None])

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be left out, or stand more than once."""
        if list(rows) == list(range(len(self._mask_BT))):
            return
        rows_B = torch.tensor(rows, device=self._mask_BT.device)
        self._mask_BT = self._mask_BT[rows_B]
        self._cache.reorder_cache(rows_B)

    def _forward(self, ids_BT: Tensor) -> Tensor:
        positions = {}
        if self._takes_positions:
            # A padded place gets position 0: it is masked, but its number must be one the model has.
            positions_BT = (self._mask_BT.cumsum(dim=1) - 1).clamp(min=0)
            positions = {"position_ids": positions_BT[:, -ids_BT.shape[1] :]}
        output = self.model(
            input_ids=ids_BT,
            attention_mask=self._mask_BT,
            past_key_values=self._cache,
            use_cache=True,
            **positions,
            **self._last_only,
        )
        logits_BV: Tensor = output.logits[:, -1].float()
        return logits_BV
