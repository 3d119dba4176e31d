"""Keys and values of what was read, with room ahead: a new token is written beside those that were read.

transformers' own cache copies all keys and values of a layer for each token that is added.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

_ROOM = 64
"""Tokens that a buffer has room for ahead, at least."""


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, shape (B, K, T, E) each: K key-value heads of width E. Twin: `DynamicLayer`."""

    keys: Any
    values: Any
    _buffers: list[Tensor] | None = None
    """What `keys` and `values` are the beginning of."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append new ones, shape (B, K, N, E); returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        total = held + key_states.shape[2]
        new = (key_states, value_states)
        if self._buffers is None or self._buffers[0].shape[2] < total:
            old = (self.keys, self.values)
            self._buffers = [_with_room(*pair, total) for pair in zip(old, new, strict=True)]
        for buffer_BKTE, new_BKNE in zip(self._buffers, new, strict=True):
            buffer_BKTE[:, :, held:total] = new_BKNE
        self.keys, self.values = (buffer_BKTE[:, :, :total] for buffer_BKTE in self._buffers)
        return self.keys, self.values

    def forget(self, count: int) -> None:
        """Drop the last `count` tokens."""
        length = self.get_seq_length() - count
        self.keys, self.values = self.keys[:, :, :length], self.values[:, :, :length]

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Go on with these, in place of all that was read."""
        self.keys, self.values = keys, values
        self._buffers = None

    def crop_left(self, count: int) -> None:
        """Drop the first `count` tokens."""
        self.hold(self.keys[:, :, count:], self.values[:, :, count:])

    def join(self, other: GrowingLayer) -> None:
        """Append the rows of `other`; the shorter ones are padded at the left by zeros, which a mask has to hide."""
        width = max(self.get_seq_length(), other.get_seq_length())
        both = ((self.keys, other.keys), (self.values, other.values))
        self.hold(
            *(torch.cat([functional.pad(held, (0, 0, width - held.shape[2], 0)) for held in pair]) for pair in both)
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with these rows, in this order."""
        super().reorder_cache(beam_idx)
        self._buffers = None


class FixedLayer(DynamicLayer):
    """One layer's keys and values, shape (B, K, C, E) each, of which the columns read so far count.

    Args:
        keys: The buffer itself: it is written in place.
        values: Likewise.
        column_1: Where the next token goes, shape (1,); the layer only reads it.
    """

    keys: Any
    values: Any

    def __init__(self, keys: Tensor, values: Tensor, column_1: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self._column_1 = keys, values, column_1
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write those of one token, shape (B, K, 1, E); returns the whole buffers."""
        self.keys.index_copy_(2, self._column_1, key_states)
        self.values.index_copy_(2, self._column_1, value_states)
        return self.keys, self.values


def growing(config: PretrainedConfig) -> DynamicCache:
    """Return an empty cache for a decoder, in which every layer that keeps all it has read has room ahead."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def forgets(cache: DynamicCache) -> bool:
    """Whether what was read last can be dropped again; a sliding window has lost by then what it pushed out."""
    return all(type(layer) is GrowingLayer for layer in cache.layers)


def _with_room(old: Tensor, new_BKNE: Tensor, total: int) -> Tensor:
    """Return a buffer with room for more than `total` tokens, which begins with the old ones."""
    buffer_BKTE = new_BKNE.new_empty((*new_BKNE.shape[:2], total + max(_ROOM, total // 2), new_BKNE.shape[3]))
    if old.numel():
        buffer_BKTE[:, :, : old.shape[2]] = old
    return buffer_BKTE
