"""The frozen lower part of a model computed once: what comes out of it is kept in a file and read again.

Where the first blocks are frozen, each row leaves them alike in every epoch. The first pass over a row stores the
states behind the last frozen block (the frontier); later passes, evaluations too, skip those blocks. The plain twin
computes them each time. With 10 of 12 blocks frozen a token costs 1.0 N operations in place of 2.67 N, N being the
weights in matrix products. An encoder-decoder has two frontiers where its encoder is frozen as a whole: behind the
encoder, and behind the frozen blocks of its decoder, if any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from lorakit.fast import relative
from lorakit.fast.states import Layout, States
from lorakit.types import Batch, Example


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frozen modules that follow each other, each of which takes what the one before hands on."""

    name: str
    modules: tuple[nn.Module, ...]
    lengths: tuple[int, ...]
    """Tokens of each row that pass through it."""
    blocks: int
    """Number of blocks in it, for messages."""


@dataclass(frozen=True, slots=True)
class Known:
    """A stretch whose states may be kept."""

    stretch: Stretch
    output: Any
    """What its last module returned for some row: a tensor, a tuple or a ModelOutput."""

    @property
    def layout(self) -> Layout:
        """Return how its states lie in their file."""
        hidden_BTD = cast(Tensor, _hidden(self.output))
        return Layout(f"{self.stretch.name}.bin", self.stretch.lengths, hidden_BTD.shape[-1], hidden_BTD.dtype)


def examine(stretches: Sequence[Stretch], forward: Callable[[], Tensor], model: nn.Module) -> tuple[list[Known], str]:
    """Watch what comes out of stretches while training; return those to be kept, and why the next one is not, or "".

    Args:
        stretches: From the input on: where one cannot be kept, those above it cannot either.
        forward: Computes scores of some row.
        model: What `forward` computes with; left in the mode it was in.
    """
    trained = model.training
    model.train()
    try:
        with _watching(stretches) as first:
            forward()
        with _watching(stretches) as second:
            forward()
    finally:
        model.train(trained)
    found: list[Known] = []
    for stretch, one, other in zip(stretches, first, second, strict=True):
        one_BTD, other_BTD = _hidden(one), _hidden(other)
        if one_BTD is None or other_BTD is None or (_beside(one) and relative.attention_in(stretch.modules[0]) is None):
            return found, "its blocks hand on more than their states"
        if one_BTD.requires_grad:
            return found, "something below the frozen blocks learns"
        if not torch.equal(one_BTD, other_BTD):
            return found, "there is dropout in the frozen part"
        found.append(Known(stretch, one))
    return found, ""


class Frontier:
    """States of rows behind frozen stretches, and the switch that puts them in place of these.

    Args:
        known: The stretches, from the input on.
        examples: All that will be read, those to learn and those to evaluate, in the order of the stretches' lengths.
        states: Of these stretches.
    """

    def __init__(self, known: Sequence[Known], examples: Sequence[Example], states: States) -> None:
        self._known, self._states = tuple(known), states
        self._numbers = {id(example): number for number, example in enumerate(examples)}
        # Held, since a number is found by the identity of an example.
        self._examples = list(examples)
        self.computed = 0
        """Rows that went through the frozen blocks."""
        self.replayed = 0
        """Rows whose states were read instead."""

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """What is computed once."""
        return tuple(known.stretch for known in self._known)

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(known.layout.bytes for known in self._known)

    def keys(self, examples: Sequence[Example]) -> tuple[int, ...]:
        """Return the numbers under which the states of `examples` are kept."""
        return tuple(self._numbers[id(example)] for example in examples)

    @contextmanager
    def around(self, batch: Batch) -> Iterator[None]:
        """Within this block a forward pass over `batch` reads its states, or stores them if one is missing."""
        if self._states.whole(batch.keys):
            self.replayed += len(batch.keys)
            with ExitStack() as skipped:
                for number in range(len(self._known)):
                    skipped.enter_context(self._skipping(number, batch))
                yield
        else:
            self.computed += len(batch.keys)
            with _watching(self.stretches) as seen:
                yield
            self._keep(seen, batch)
        self._states.release()

    def differs(self, forward: Callable[[], Tensor], batch: Batch, model: nn.Module) -> str:
        """Hold scores with states read again against those of the whole model; return how they differ, or "".

        Args:
            forward: Computes the scores of `batch`.
            batch: Its keys among those of the run.
            model: What `forward` computes with; left in the mode it was in.
        """
        trained = model.training
        model.eval()
        try:
            with torch.no_grad():
                plain = forward()
                with self.around(batch):
                    forward()
                with self.around(batch):
                    replayed = forward()
        finally:
            model.train(trained)
        difference = float((plain.float() - replayed.float()).abs().max())
        bound = 1e-4 * max(1.0, float(plain.float().abs().max()))
        return "" if difference <= bound else f"scores without the frozen blocks differ by {difference:.1e}"

    def flush(self) -> None:
        """Write down the states, for a run that goes on after an interruption."""
        self._states.flush()

    def _keep(self, seen: Sequence[Any], batch: Batch) -> None:
        # At once, since each copy from a GPU waits for all that was launched.
        computed = [cast(Tensor, _hidden(output)).detach().cpu() for output in seen]
        places = [self._places(number, hidden_BTD, batch) for number, hidden_BTD in enumerate(computed)]
        for row, key in enumerate(batch.keys):
            # What a resumed run took up stays bit for bit: beside other rows the last digit may round otherwise.
            if not self._states.whole([key]):
                for number, place_TD in enumerate(places):
                    self._states.of(number, key).copy_(place_TD[row])
                self._states.mark(key)

    @contextmanager
    def _skipping(self, number: int, batch: Batch) -> Iterator[None]:
        """Within this block a stretch hands on what it gets, and its last module hands on the stored states."""
        known = self._known[number]
        modules = known.stretch.modules

        def handed_on(hidden_BTD: Tensor, *_: Any, **__: Any) -> Any:
            return _like(known.output, hidden_BTD)

        def stored(*arguments: Any, **given: Any) -> Any:
            # A block is given states, an encoder the ids of its tokens.
            read = next(value for value in (*arguments, *given.values()) if isinstance(value, Tensor))
            layout = known.layout
            shape = (*read.shape[:2], layout.width)
            hidden_BTD = torch.zeros(shape, dtype=layout.dtype, pin_memory=read.is_cuda)
            for key, place_TD in zip(batch.keys, self._places(number, hidden_BTD, batch), strict=True):
                place_TD.copy_(self._states.of(number, key))
            hidden_BTD = hidden_BTD.to(read.device, non_blocking=True)
            if not _beside(known.output):
                return _like(known.output, hidden_BTD)
            # The blocks above go by the bias of the lowest one.
            bias = relative.bias_of(relative.attention_in(modules[0]), hidden_BTD, given.get("segment_lengths"))
            return _like(known.output, hidden_BTD, bias)

        for module in modules:
            module.forward = stored if module is modules[-1] else handed_on
        try:
            yield
        finally:
            for module in modules:
                del module.forward

    def _places(self, number: int, hidden_BTD: Tensor, batch: Batch) -> list[Tensor]:
        """Return where the states of each row stand, shape (T, D) each: end to end, or padded at the right."""
        lengths = [self._known[number].stretch.lengths[key] for key in batch.keys]
        if not batch.lengths:
            return [row_TD[:length] for row_TD, length in zip(hidden_BTD, lengths, strict=True)]
        extra = hidden_BTD.shape[1] - sum(lengths)
        return list(hidden_BTD[0].split([*lengths, extra]))[: len(lengths)]


@contextmanager
def _watching(stretches: Sequence[Stretch]) -> Iterator[list[Any]]:
    """Within this block what comes out of each stretch is noted; of several passes the last one's."""
    seen: list[Any] = [None] * len(stretches)

    def noted(number: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen[number] = output

        return hook

    with ExitStack() as hooks:
        for number, stretch in enumerate(stretches):
            hooks.callback(stretch.modules[-1].register_forward_hook(noted(number)).remove)
        yield seen


def _hidden(output: Any) -> Tensor | None:
    """Return the states in what a module returned; None where it is unknown which they are."""
    if isinstance(output, ModelOutput):
        # An encoder; more than states are there only where attention weights and the like were asked for.
        output = tuple(output.values())
        return output[0] if len(output) == 1 else None
    first = output[0] if isinstance(output, tuple) and output else output
    return first if isinstance(first, Tensor) else None


def _beside(output: Any) -> bool:
    """Whether a block returned more than its states."""
    return isinstance(output, tuple) and any(other is not None for other in output[1:])


def _like(output: Any, hidden_BTD: Tensor, bias: Tensor | None = None) -> Any:
    """Return states, and a relative bias, in the way that a module returned `output`."""
    if isinstance(output, ModelOutput):
        return type(output)(hidden_BTD)
    if isinstance(output, tuple):
        return (hidden_BTD, bias, *[None] * len(output))[: len(output)]
    return hidden_BTD
