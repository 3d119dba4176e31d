"""The loop: predict the next token, append it, read it back, until the answer ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lorakit.errors import LorakitError
from lorakit.generation.constraints import Constraints
from lorakit.generation.encoded import context_of
from lorakit.generation.sampling import draw, narrow, penalise_repetition, stream_of
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


@dataclass(slots=True)
class _Answer:
    """An answer being written."""

    prompt: int
    sample: int
    read: list[int]
    uniforms: Any
    stream: TextStream | None
    emitted: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    log_probability: float = 0.0
    steps: list[Step] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def finished(self) -> Generation:
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


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSettings,
    eos_ids: Collection[int],
    tokenizer: Any = None,
    *,
    joined: bool = True,
    watcher: Watcher = Watcher(),
    numbers: Sequence[int] | None = None,
) -> list[Generation]:
    """Write answers to all `prompts` side by side, one token of each at a time.

    A row reads and writes as it would alone. An answer that has ended leaves the batch.

    Args:
        model: A causal language model or an encoder-decoder in eval mode, on its device.
        prompts: Ids of each prompt, or of each source, at least one each.
        settings: How tokens are chosen and where answers end; one beam (`beams.beam_search` keeps more).
        eos_ids: Ids that end an answer.
        tokenizer: Turns ids into text; needed for stop texts and for `text`.
        joined: Whether an answer goes on from its prompt mid-text (see `TextStream`), or is a text of its own, as that
            of an encoder-decoder always is.
        watcher: Told of text and steps as they come; left out: nobody.
        numbers: Numbers of the prompts, which seed their draws; left out: 0, 1, ...

    Returns:
        `num_samples` answers a prompt, in the order of the prompts.

    Raises:
        LorakitError: A prompt is empty or too long, the logits are not finite, or stop texts lack a tokenizer.
    """
    check_stops(settings, tokenizer)
    if not prompts:
        return []
    context = context_of(model, prompts)
    joined = joined and context.continues
    answers = [
        _Answer(
            prompt=number,
            sample=sample,
            read=list(before),
            uniforms=stream_of(settings.seed, number, sample),
            stream=None if tokenizer is None else TextStream(tokenizer, settings.stop, before if joined else ()),
        )
        for number, before in zip(range(len(prompts)) if numbers is None else numbers, context.before, strict=True)
        for sample in range(settings.num_samples)
    ]
    constraints = Constraints(model, longest_answer(settings, context.limit, context.before[0]), eos_ids)
    logits_BV = context.read_prompts()
    copies = [row for row in range(len(prompts)) for _ in range(settings.num_samples)]
    context.select(copies)
    logits_BV = logits_BV[copies]
    going = answers
    while going:
        for answer, token in zip(going, _take(logits_BV, going, settings, constraints, watcher), strict=True):
            _follow(answer, token, settings, eos_ids, context.limit, watcher)
        kept = [row for row, answer in enumerate(going) if answer.finish_reason is None]
        going = [going[row] for row in kept]
        if going:
            context.select(kept)
            logits_BV = context.read(torch.tensor([answer.read[-1] for answer in going], device=logits_BV.device))
    return [answer.finished() for answer in answers]


def check_stops(settings: DecodingSettings, tokenizer: Any) -> None:
    """Raise LorakitError where stop texts are asked for and nothing can turn ids into text."""
    if settings.stop and tokenizer is None:
        raise LorakitError("stop texts can only be found with a tokenizer; give one, or leave stop out.")


def longest_answer(settings: DecodingSettings, limit: int | None, before: Sequence[int]) -> int:
    """Return how many tokens an answer can have, by the settings and by the positions left behind `before`."""
    # The last token need not be read any more, so one more than the positions can stand in a row.
    return settings.max_new_tokens if limit is None else min(settings.max_new_tokens, limit - len(before) + 1)


def _take(
    logits_BV: Tensor,
    answers: list[_Answer],
    settings: DecodingSettings,
    constraints: Constraints,
    watcher: Watcher,
) -> list[int]:
    """Choose the next token of each answer and record its probability."""
    log_probabilities_BV = checked_log_probabilities(logits_BV, step=len(answers[0].emitted) + 1)
    scores_BV = logits_BV
    if settings.repetition_penalty != 1:
        seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
        for row, answer in enumerate(answers):
            seen_BV[row, answer.read] = True
        scores_BV = penalise_repetition(logits_BV, seen_BV, settings.repetition_penalty)
    scores_BV = constraints.apply(scores_BV, [answer.read for answer in answers])
    if settings.samples:
        tokens_B = draw(narrow(scores_BV, settings), [answer.uniforms.random() for answer in answers])
    else:
        tokens_B = scores_BV.argmax(dim=-1)
    tokens: list[int] = tokens_B.tolist()
    gains = log_probabilities_BV.gather(1, tokens_B[:, None]).squeeze(1).tolist()
    for row, (answer, token, gain) in enumerate(zip(answers, tokens, gains, strict=True)):
        answer.log_probability += gain
        if watcher.top:
            best = log_probabilities_BV[row].exp().topk(min(watcher.top, logits_BV.shape[1]))
            candidates = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            probability = float(log_probabilities_BV[row, token].exp())
            answer.steps.append(Step(tuple(answer.read[-8:]), candidates, token, probability))
    return tokens


def checked_log_probabilities(logits_BV: Tensor, step: int) -> Tensor:
    """Return natural log-probabilities, shape (B, V).

    Raises:
        LorakitError: A row holds a NaN or plus infinity, or nothing but minus infinity. Greedy decoding would go on
            as if nothing were wrong.
    """
    # The log of the sum is finite exactly when the row is a distribution.
    total_B1 = logits_BV.logsumexp(dim=-1, keepdim=True)
    if not total_B1.isfinite().all():
        raise LorakitError(
            f"the model's logits are not finite at step {step}: the weights hold a NaN or an infinity, or overflow in "
            f"this dtype. Compute in float32; where that does not help, the checkpoint is damaged or its training "
            f"diverged."
        )
    return logits_BV - total_B1


def _follow(
    answer: _Answer,
    token: int,
    settings: DecodingSettings,
    eos_ids: Collection[int],
    limit: int | None,
    watcher: Watcher,
) -> None:
    """Append `token` to the answer, and find out whether the answer ends with it."""
    answer.read.append(token)
    answer.emitted.append(token)
    if watcher.on_step is not None and answer.steps:
        watcher.on_step(answer.prompt, answer.sample, answer.steps[-1])
    piece = ""
    if token in eos_ids:
        answer.finish_reason = "eos"
    elif answer.stream is not None:
        piece = answer.stream.push(token)
        if answer.stream.stopped:
            answer.finish_reason = "stop"
    if answer.finish_reason is None:
        if len(answer.emitted) >= settings.max_new_tokens:
            answer.finish_reason = "length"
        elif limit is not None and len(answer.read) > limit:
            answer.finish_reason = "context"
    if answer.finish_reason is not None and answer.stream is not None:
        piece += answer.stream.close()
    if piece:
        answer.pieces.append(piece)
        if watcher.on_text is not None:
            watcher.on_text(answer.prompt, answer.sample, piece)
