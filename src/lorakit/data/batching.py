"""Which rows make an optimizer step, and how a step is cut into micro-batches: by tokens, without padding.

A step is a property of the recipe alone: its rows depend on the lengths, the seed and the epoch. How many processes
share it and how much of it is computed at once never changes which rows it holds, and so never changes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lorakit.data.token_files import lengths
from lorakit.types import Example

PADDING = 128
"""Most tokens of padding in a bucket: about as many as could be computed in the time that one more bucket costs."""


@dataclass(frozen=True)
class FixedPlan:
    """Steps over examples that lie in memory or in files."""

    examples: Sequence[Example]
    seed: int
    epochs: int
    tokens_per_step: int | None = 8192
    rows_per_step: int | None = None
    max_steps: int | None = None
    """Exactly this many steps, in place of the epochs."""

    def total(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        return self._total

    @property
    def whole(self) -> bool:
        """Whether a step takes all examples, so that an epoch is one step."""
        if self.rows_per_step is not None:
            return len(self.examples) <= self.rows_per_step
        return int(self._lengths.sum()) <= (self.tokens_per_step or 8192)

    @cached_property
    def _total(self) -> int:
        if self.max_steps is not None:
            return self.max_steps
        if self.rows_per_step is not None:
            return self.epochs * -(-len(self.examples) // self.rows_per_step)
        return sum(len(self.epoch(epoch)) for epoch in range(self.epochs))

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.array(lengths(self.examples), dtype=np.int64)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Return the steps of one epoch as lists of indices: a permutation of all, drawn from (seed, epoch) alone."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.examples))
        if self.rows_per_step is not None:
            return [part.tolist() for part in _parts(order, self.rows_per_step)]
        return [order[cut].tolist() for cut in filled(self._lengths[order].tolist(), self.tokens_per_step or 8192)]

    def steps(self, skip: int = 0) -> Iterator[tuple[int, list[Example]]]:
        """Yield (epoch, rows of a step), leaving out the first `skip` steps of the run."""
        done, epoch = 0, 0
        while done < self.total():
            for step in self.epoch(epoch)[: self.total() - done]:
                done += 1
                if done > skip:
                    yield epoch, [self.examples[index] for index in step]
            epoch += 1


@dataclass(frozen=True)
class StreamPlan:
    """Steps over rows that are read while training, shuffled within a buffer."""

    read: Callable[[int], Iterable[Example]]
    """Starts reading from the beginning; called again, with its number from 0, for each epoch."""
    seed: int
    max_steps: int
    buffer: int
    tokens_per_step: int | None = 8192
    rows_per_step: int | None = None
    whole: bool = False
    """How many examples there are is not known."""

    def total(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        return self.max_steps

    def steps(self, skip: int = 0) -> Iterator[tuple[int, list[Example]]]:
        """Yield (epoch, rows of a step); the first `skip` steps are read again and left out, so order is kept."""
        done, epoch = 0, 0
        while done < self.max_steps:
            before = done
            for step in self._epoch(epoch):
                done += 1
                if done > skip:
                    yield epoch, step
                if done == self.max_steps:
                    return
            if done == before:
                return
            epoch += 1

    def _epoch(self, epoch: int) -> Iterator[list[Example]]:
        step: list[Example] = []
        tokens = 0
        for example in self._shuffled(epoch):
            full = (
                len(step) == self.rows_per_step
                if self.rows_per_step is not None
                else tokens + len(example) > (self.tokens_per_step or 8192)
            )
            if step and full:
                yield step
                step, tokens = [], 0
            step.append(example)
            tokens += len(example)
        if step:
            yield step

    def _shuffled(self, epoch: int) -> Iterator[Example]:
        generator = np.random.default_rng((self.seed, epoch))
        held: list[Example] = []
        for example in self.read(epoch):
            if len(held) < self.buffer:
                held.append(example)
                continue
            index = int(generator.integers(self.buffer))
            held[index], example = example, held[index]
            yield example
        yield from (held[index] for index in generator.permutation(len(held)))


Plan = FixedPlan | StreamPlan


def filled(lengths: Sequence[int], budget: int) -> list[slice]:
    """Cut a sequence into consecutive slices whose lengths add up to at most `budget`; a longer row stands alone."""
    slices, start, total = [], 0, 0
    for index, length in enumerate(lengths):
        if index > start and total + length > budget:
            slices.append(slice(start, index))
            start, total = index, 0
        total += length
    if start < len(lengths):
        slices.append(slice(start, len(lengths)))
    return slices


def share(examples: Sequence[Example], rank: int, world: int) -> list[Example]:
    """Return the rows of a step that process `rank` of `world` computes, about equal in tokens.

    Longest first, each to the process with the fewest tokens so far; ties go to the lower rank.
    """
    if world == 1:
        return list(examples)
    loads = [0] * world
    mine = []
    for example in sorted(examples, key=len, reverse=True):
        lightest = loads.index(min(loads))
        loads[lightest] += len(example)
        if lightest == rank:
            mine.append(example)
    return mine


def micro_batches(examples: Sequence[Example], budget: int, packed: bool) -> list[list[Example]]:
    """Cut rows into micro-batches of at most `budget` tokens, padding included; a longer row stands alone.

    Args:
        examples: Rows of one step, or of an evaluation.
        budget: Tokens computed at once.
        packed: Whether rows lie end to end; otherwise rows of similar length are put together (buckets), with at most
            `PADDING` tokens of padding.
    """
    if packed:
        return [list(examples[cut]) for cut in filled([len(example) for example in examples], budget)]
    batches: list[list[Example]] = []
    read = written = tokens = 0
    for example in sorted(examples, key=len, reverse=True):
        one_read, one_written = len(example.ids), len(example) - len(example.ids)
        read, written, tokens = max(read, one_read), max(written, one_written), tokens + len(example)
        padded = (len(batches[-1]) + 1) * (read + written) if batches else 0
        if batches and padded <= budget and padded - tokens <= PADDING:
            batches[-1].append(example)
        else:
            batches.append([example])
            read, written, tokens = one_read, one_written, len(example)
    return batches


def _parts(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (order[start : start + size] for start in range(0, len(order), size))
