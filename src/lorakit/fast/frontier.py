"""The frozen lower part of a model computed once: what comes out of it is kept in a file and read again.

Where the first blocks are frozen, each row leaves them alike in every epoch. The first pass over a row stores the
states behind the last frozen block (the frontier); later passes, evaluations too, skip those blocks. The plain twin
computes them each time. With 10 of 12 blocks frozen a token costs 1.0 N operations in place of 2.67 N, N being the
weights in matrix products.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lorakit.types import Batch, Example

_STATES, _FILLED = "states.bin", "filled.npy"


class Frontier:
    """States of rows behind the frozen blocks, and the switch that puts them in place of these blocks.

    Args:
        blocks: The frozen ones, the first of the model on.
        examples: All that will be read: those to learn and those to evaluate.
        width: Features of a state.
        folder: Where the states are kept; one that an interrupted run left is gone on with.
    """

    def __init__(self, blocks: Sequence[nn.Module], examples: Sequence[Example], width: int, folder: Path) -> None:
        self._blocks, self._width, self._folder = list(blocks), width, folder
        self._numbers = {id(example): number for number, example in enumerate(examples)}
        # Held, since a number is found by the identity of an example.
        self._examples = list(examples)
        self._ends = np.cumsum([len(example.ids) for example in examples])
        self._filled = np.zeros(len(examples), dtype=bool)
        self._states: Tensor | None = None
        self._length: int | None = None
        self.computed = 0
        """Rows that went through the frozen blocks."""
        self.replayed = 0
        """Rows whose states were read instead."""

    @staticmethod
    def bytes_for(examples: Sequence[Example], width: int) -> int:
        """Return the size of the file, states in float32."""
        return sum(len(example.ids) for example in examples) * width * 4

    def keys(self, examples: Sequence[Example]) -> tuple[int, ...]:
        """Return the numbers under which the states of `examples` are kept."""
        return tuple(self._numbers[id(example)] for example in examples)

    @contextmanager
    def around(self, batch: Batch) -> Iterator[None]:
        """Within this block a forward pass over `batch` reads its states, or stores them if one is missing."""
        if all(self._filled[key] for key in batch.keys):
            self.replayed += len(batch.keys)
            with self._skipping(batch):
                yield
            return
        self.computed += len(batch.keys)
        seen: list[Any] = []
        handle = self._blocks[-1].register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            yield
        finally:
            handle.remove()
        if seen:
            self._keep(seen[-1], batch)

    def proves_itself(self, forward: Callable[[], Tensor], batch: Batch, model: nn.Module) -> str:
        """Compare scores with and without the frozen blocks; return why states must not be read again, or "".

        Args:
            forward: Computes the scores of `batch`.
            batch: Its keys among those of the run.
            model: What `forward` computes with; left in the mode it was in.
        """
        trained = model.training
        seen: list[Any] = []
        handle = self._blocks[-1].register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            model.train()
            forward()
            forward()
            first, second = (_hidden(output) for output in (seen[len(seen) // 2 - 1], seen[-1]))
            if first is None or second is None:
                return "its blocks hand on more than their states"
            if first.requires_grad:
                return "something below the frozen blocks learns"
            if not torch.equal(first, second):
                return "there is dropout in the frozen part"
            model.eval()
            with torch.no_grad():
                with self.around(batch):
                    plain = forward()
                with self.around(batch):
                    replayed = forward()
        finally:
            handle.remove()
            model.train(trained)
        difference = float((plain.float() - replayed.float()).abs().max())
        bound = 1e-4 * max(1.0, float(plain.float().abs().max()))
        return "" if difference <= bound else f"scores without the frozen blocks differ by {difference:.1e}"

    def flush(self) -> None:
        """Write down which states are whole, after the states themselves: a power cut leaves no hole behind."""
        if self._states is None:
            return
        descriptor = os.open(self._folder / _STATES, os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)
        aside = self._folder / f".{_FILLED}"
        with aside.open("wb") as stream:
            np.save(stream, self._filled)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, self._folder / _FILLED)

    def _keep(self, output: Any, batch: Batch) -> None:
        hidden_BTD = _hidden(output)
        assert hidden_BTD is not None
        self._length = len(output) if isinstance(output, tuple) else None
        if self._states is None:
            self._states = self._opened(hidden_BTD.dtype)
        states_ND = self._states
        for key, place in zip(batch.keys, _places(batch, hidden_BTD, self._lengths(batch)), strict=True):
            # What a resumed run took up stays bit for bit: beside other rows the last digit may round otherwise.
            if not self._filled[key]:
                states_ND[self._slice(key)] = place.detach().to(states_ND.device)
                self._filled[key] = True

    def _opened(self, dtype: torch.dtype) -> Tensor:
        """Map the file, and take up what an interrupted run has stored in it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        size = int(self._ends[-1]) * self._width
        file, filled = self._folder / _STATES, self._folder / _FILLED
        whole = file.exists() and file.stat().st_size == size * dtype.itemsize
        if whole and filled.exists():
            earlier = np.load(filled, allow_pickle=False)
            if earlier.shape == self._filled.shape:
                self._filled |= earlier
        return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(-1, self._width)

    def _lengths(self, batch: Batch) -> list[int]:
        return [len(self._examples[key].ids) for key in batch.keys]

    def _slice(self, key: int) -> slice:
        return slice(int(self._ends[key]) - len(self._examples[key].ids), int(self._ends[key]))

    @contextmanager
    def _skipping(self, batch: Batch) -> Iterator[None]:
        """Within this block the frozen blocks hand on what they get, and the last one hands on the stored states."""

        def handed_on(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return self._shaped(hidden_states)

        def stored(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            assert self._states is not None
            hidden_BTD = torch.zeros_like(hidden_states, dtype=self._states.dtype)
            for key, place in zip(batch.keys, _places(batch, hidden_BTD, self._lengths(batch)), strict=True):
                place.copy_(self._states[self._slice(key)])
            return self._shaped(hidden_BTD)

        for block in self._blocks:
            block.forward = stored if block is self._blocks[-1] else handed_on
        try:
            yield
        finally:
            for block in self._blocks:
                del block.forward

    def _shaped(self, hidden_BTD: Tensor) -> Any:
        """Return states in the way that the blocks of this model return them."""
        return hidden_BTD if self._length is None else (hidden_BTD, *([None] * (self._length - 1)))


def _hidden(output: Any) -> Tensor | None:
    """Return the states in what a block returned; None where it returned more than states."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple) and output and all(other is None for other in output[1:]):
        return output[0] if isinstance(output[0], Tensor) else None
    return None


def _places(batch: Batch, hidden_BTD: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Return where the states of each row stand, shape (T, D) each: end to end, or padded at the right."""
    if not batch.lengths:
        return [row_TD[:length] for row_TD, length in zip(hidden_BTD, lengths, strict=True)]
    extra = hidden_BTD.shape[1] - sum(lengths)
    return list(hidden_BTD[0].split([*lengths, extra]))[: len(lengths)]
