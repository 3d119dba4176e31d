"""Answers: one while it is written, and one that has ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from lorakit.generation.sampling import Draws
from lorakit.generation.settings import DecodingSettings
from lorakit.generation.streaming import TextStream

FinishReason = Literal["eos", "stop", "length", "context"]
"""Why an answer ended: end-of-sequence token, stop text, `max_new_tokens`, or the model's last position."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one answer."""

    read: tuple[int, ...]
    """The last ids the model read; of an encoder-decoder, its decoder."""
    candidates: tuple[tuple[int, float], ...]
    """The most probable next tokens and their probabilities in [0, 1], by the model, before penalties and narrowing."""
    taken: int
    """The id that was appended."""
    probability: float
    """Its probability in [0, 1], by the model."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One finished answer."""

    prompt: int
    """Number of the prompt it answers, from 0."""
    sample: int
    """Number of the answer among those to the same prompt, from 0."""
    ids: tuple[int, ...]
    """Emitted ids; the last one is the end-of-sequence token where `finish_reason` is ``eos``."""
    text: str
    """Their text without the end-of-sequence token and without the stop text; empty when no tokenizer was given."""
    finish_reason: FinishReason
    log_probability: float
    """Sum over `ids` of the natural log-probability by the model, before penalties, temperature and narrowing."""
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who wants to know while answers are written; both calls name the answer by its prompt and sample."""

    on_text: Callable[[int, int, str], None] | None = None
    """Takes (prompt, sample, piece): whole characters that are certain to belong to the answer."""
    on_step: Callable[[int, int, Step], None] | None = None
    """Takes (prompt, sample, step)."""
    top: int = 0
    """How many candidates a step records; 0 records no steps."""


NOBODY = Watcher()


@dataclass(slots=True)
class Answer:
    """An answer being written."""

    prompt: int
    sample: int
    read: list[int]
    source: Sequence[int]
    """What an encoder read for it."""
    draws: Draws
    stream: TextStream | None
    emitted: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    log_probability: float = 0.0
    steps: list[Step] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def finished(self) -> Generation:
        """Return it as the result, now that it has ended."""
        assert self.finish_reason is not None
        return Generation(
            prompt=self.prompt,
            sample=self.sample,
            ids=tuple(self.emitted),
            text="".join(self.pieces),
            finish_reason=self.finish_reason,
            log_probability=self.log_probability,
            steps=tuple(self.steps),
        )

    def step(self, token: int, log_probabilities_V: Tensor, top: int) -> Step:
        """Return the step that appends `token`, with its `top` most probable candidates."""
        best = log_probabilities_V.exp().topk(min(top, len(log_probabilities_V)))
        candidates = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Step(tuple(self.read[-8:]), candidates, token, float(log_probabilities_V[token].exp()))

    def append(
        self, token: int, settings: DecodingSettings, eos_ids: Collection[int], limit: int | None, watcher: Watcher
    ) -> None:
        """Append `token`, tell `watcher`, and find out whether the answer ends with it; `limit` is of what is read."""
        self.read.append(token)
        self.emitted.append(token)
        if watcher.on_step is not None and self.steps:
            watcher.on_step(self.prompt, self.sample, self.steps[-1])
        piece = ""
        if token in eos_ids:
            self.finish_reason = "eos"
        elif self.stream is not None:
            piece = self.stream.push(token)
            if self.stream.stopped:
                self.finish_reason = "stop"
        if self.finish_reason is None:
            if len(self.emitted) >= settings.max_new_tokens:
                self.finish_reason = "length"
            elif limit is not None and len(self.read) > limit:
                self.finish_reason = "context"
        if self.finish_reason is not None and self.stream is not None:
            piece += self.stream.close()
        if piece:
            self.pieces.append(piece)
            if watcher.on_text is not None:
                watcher.on_text(self.prompt, self.sample, piece)
