"""What a model has read so far: key-value cache, mask and positions of a batch whose rows may leave or multiply."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from lorakit import families
from lorakit.errors import LorakitError
from lorakit.generation import caching


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
        self._cache = caching.growing(model.config)
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
        return self._forward(ids_BT.to(self.model.device), **self._last_only)[:, -1]

    def read(self, tokens_BN: Tensor) -> Tensor:
        """Append tokens to each row, shape (B, N); returns logits of the one after each, shape (B, N, V), float32."""
        self._mask_BT = torch.cat((self._mask_BT, self._mask_BT.new_ones(tokens_BN.shape)), dim=1)
        return self._forward(tokens_BN)

    @property
    def forgets(self) -> bool:
        """Whether what was read last can be dropped again."""
        return caching.forgets(self._cache)

    def forget(self, count: int) -> None:
        """Drop the last `count` tokens of each row."""
        if count:
            self._mask_BT = self._mask_BT[:, :-count]
            for layer in self._cache.layers:
                layer.forget(count)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be left out, or stand more than once."""
        if list(rows) == list(range(len(self._mask_BT))):
            return
        rows_B = torch.tensor(rows, device=self._mask_BT.device)
        self._mask_BT = self._mask_BT[rows_B]
        self._cache.reorder_cache(rows_B)
        if self.joins:
            self._drop_padding()

    def _drop_padding(self) -> None:
        """Leave out the first columns, in which no row has a token any more."""
        empty = int(self._mask_BT.any(dim=0).int().argmax())
        if empty:
            self._mask_BT = self._mask_BT[:, empty:]
            for layer in self._cache.layers:
                layer.crop_left(empty)

    @property
    def joins(self) -> bool:
        """Whether rows that were read apart may go on with these; a sliding window counts its places from one start."""
        return caching.forgets(self._cache)

    def join(self, other: Context) -> None:
        """Append the rows of `other`, whose next token then stands in the same column."""
        width = max(self._mask_BT.shape[1], other._mask_BT.shape[1])
        masks = [functional.pad(mask_BT, (width - mask_BT.shape[1], 0)) for mask_BT in (self._mask_BT, other._mask_BT)]
        self._mask_BT = torch.cat(masks)
        for layer, more in zip(self._cache.layers, other._cache.layers, strict=True):
            layer.join(more)

    def _forward(self, ids_BT: Tensor, **last_only: int) -> Tensor:
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
            **last_only,
        )
        logits_BTV: Tensor = output.logits.float()
        return logits_BTV
