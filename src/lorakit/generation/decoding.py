"""The loop: predict the next token, append it, read it back, until the answer ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lorakit.errors import LorakitError
from lorakit.generation.answers import NOBODY, Answer, Generation, Watcher
from lorakit.generation.captured import CapturedSteps
from lorakit.generation.constraints import Constraints
from lorakit.generation.encoded import context_of
from lorakit.generation.sampling import Draws, draw, narrow, penalise_repetition
from lorakit.generation.settings import DecodingSettings
from lorakit.generation.speculation import LONGEST, Drafter
from lorakit.generation.streaming import TextStream


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSettings,
    eos_ids: Collection[int],
    tokenizer: Any = None,
    *,
    joined: bool = True,
    watcher: Watcher = NOBODY,
    numbers: Sequence[int] | None = None,
    drafter: Drafter | None = None,
    steps: CapturedSteps | None = None,
    at_once: Sequence[int] = (),
) -> list[Generation]:
    """Write answers to all `prompts`, and return them in the order of the prompts; otherwise like `decoded`."""
    numbers = range(len(prompts)) if numbers is None else numbers
    options: dict[str, Any] = {"joined": joined, "watcher": watcher, "drafter": drafter, "steps": steps}
    written = decoded(model, prompts, settings, eos_ids, tokenizer, numbers=numbers, at_once=at_once, **options)
    places = {number: place for place, number in enumerate(numbers)}
    return sorted(written, key=lambda answer: (places[answer.prompt], answer.sample))


@torch.inference_mode()
def decoded(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSettings,
    eos_ids: Collection[int],
    tokenizer: Any = None,
    *,
    numbers: Sequence[int],
    joined: bool = True,
    watcher: Watcher = NOBODY,
    drafter: Drafter | None = None,
    steps: CapturedSteps | None = None,
    at_once: Sequence[int] = (),
) -> Iterator[Generation]:
    """Write answers side by side, one token of each at a time.

    A row reads and writes as it would alone. An answer that has ended leaves the batch; where the model's cache allows
    it, the next prompts take the places left (continuous batching; Yu et al. 2022, Orca, section 3.1).

    Args:
        model: A causal language model or an encoder-decoder in eval mode, on its device.
        prompts: Ids of each prompt, or of each source, at least one each.
        settings: How tokens are chosen and where answers end; one beam (`beams.beam_search` keeps more).
        eos_ids: Ids that end an answer.
        tokenizer: Turns ids into text; needed for stop texts and for `text`.
        numbers: Numbers of the prompts, which seed their draws.
        joined: Whether an answer goes on from its prompt mid-text (see `TextStream`), or is a text of its own, as that
            of an encoder-decoder always is.
        watcher: Told of text and steps as they come; left out: nobody.
        drafter: Proposes tokens while a single answer is being written; it changes the time, not the text.
        steps: Read the tokens of a decoder, on a GPU; they change the time, not the text.
        at_once: How many prompts may be answered beside each one, itself included; left out: all.

    Yields:
        `num_samples` answers a prompt, each when it has ended.

    Raises:
        LorakitError: A prompt is empty or too long, the logits are not finite, or stop texts lack a tokenizer.
    """
    check_stops(settings, tokenizer)
    writing = _Writing(model, settings, eos_ids, tokenizer, joined, watcher, drafter, steps)
    waiting = list(zip(numbers, prompts, strict=True))
    places = list(at_once or [len(waiting)] * len(waiting))
    context: Any = None
    going: list[Answer] = []
    while waiting or going:
        taken = _taken(places, len(going) // settings.num_samples, bool(going) and not context.joins)
        if taken:
            fresh, begun = writing.begin(waiting[:taken])
            del waiting[:taken], places[:taken]
            yield from (answer.finished() for answer in begun if answer.finish_reason is not None)
            begun = _going_on(fresh, begun)
            if going and begun:
                context.join(fresh)
            elif begun:
                context = fresh
            going += begun
        else:
            writing.go_on(context, going)
            yield from (answer.finished() for answer in going if answer.finish_reason is not None)
            going = _going_on(context, going)


@dataclass(slots=True)
class _Writing:
    """What stays the same while answers are written."""

    model: PreTrainedModel
    settings: DecodingSettings
    eos_ids: Collection[int]
    tokenizer: Any
    joined: bool
    watcher: Watcher
    drafter: Drafter | None
    steps: CapturedSteps | None
    constraints: Constraints | None = None

    def begin(self, prompts: Sequence[tuple[int, Sequence[int]]]) -> tuple[Any, list[Answer]]:
        """Read prompts, numbered, and take the first token of each answer; returns what was read, and the answers."""
        context = context_of(self.model, [ids for _, ids in prompts], self.steps)
        self.constraints = Constraints(
            self.model, longest_answer(self.settings, context.limit, context.before[0]), self.eos_ids
        )
        answers = [
            Answer(
                prompt=number,
                sample=sample,
                read=list(before),
                source=() if context.continues else ids,
                draws=Draws(self.settings.seed, number, sample),
                stream=self._stream(before if self.joined and context.continues else ()),
            )
            for (number, ids), before in zip(prompts, context.before, strict=True)
            for sample in range(self.settings.num_samples)
        ]
        copies = [row for row in range(len(prompts)) for _ in range(self.settings.num_samples)]
        logits_BV = context.read_prompts()[copies]
        context.select(copies)
        self._take(logits_BV, answers, context.limit)
        return context, answers

    def go_on(self, context: Any, answers: list[Answer]) -> None:
        """Take one token of each answer or, of a single one, as many as its draft foresaw and one more."""
        drafts = self._drafts(context, answers[0]) if len(answers) == 1 else []
        last_BN = [[answer.read[-1]] for answer in answers] if not drafts else [[answers[0].read[-1], *drafts]]
        logits_BNV = context.read(torch.tensor(last_BN, device=self.model.device))
        for place in range(len(drafts) + 1):
            self._take(logits_BNV[:, place], answers, context.limit)
            kept = place < len(drafts) and answers[0].read[-1] == drafts[place]
            if self.drafter is not None:
                self.drafter.kept += kept
            if not kept or answers[0].finish_reason is not None:
                context.forget(len(drafts) - place)
                break

    def _drafts(self, context: Any, answer: Answer) -> list[int]:
        """Return what the next tokens might be, or nothing; the answer may end with them at the earliest."""
        written, limit = len(answer.emitted), context.limit
        count = min(LONGEST, self.settings.max_new_tokens - written - 1)
        count = count if limit is None else min(count, limit - len(answer.read))
        if self.drafter is None or count < 1 or not context.forgets:
            return []

        def choose(logits_1V: Tensor, ahead: Sequence[int]) -> int:
            return int(self._choose(logits_1V, [[*answer.read, *ahead]], lambda: [answer.draws[written + len(ahead)]]))

        drafts = self.drafter.draft(context, [*answer.source, *answer.read], count, choose)
        self.drafter.drafted += len(drafts)
        return drafts

    def _take(self, logits_BV: Tensor, answers: Sequence[Answer], limit: int | None) -> None:
        """Choose the next token of each answer, record its probability, and append it."""
        log_probabilities_BV = checked_log_probabilities(logits_BV, step=len(answers[0].emitted) + 1)
        tokens_B = self._choose(
            logits_BV,
            [answer.read for answer in answers],
            lambda: [answer.draws[len(answer.emitted)] for answer in answers],
        )
        gains = log_probabilities_BV.gather(1, tokens_B[:, None]).squeeze(1).tolist()
        for row, (answer, token, gain) in enumerate(zip(answers, tokens_B.tolist(), gains, strict=True)):
            answer.log_probability += gain
            if self.watcher.top:
                answer.steps.append(answer.step(token, log_probabilities_BV[row], self.watcher.top))
            answer.append(token, self.settings, self.eos_ids, limit, self.watcher)

    def _choose(self, logits_BV: Tensor, read: Sequence[Sequence[int]], draws: Callable[[], Sequence[float]]) -> Tensor:
        """Return the token that comes after what each row has read, shape (B,); `draws` gives a number a row."""
        scores_BV = logits_BV
        if self.settings.repetition_penalty != 1:
            seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
            for row, ids in enumerate(read):
                seen_BV[row, ids] = True
            scores_BV = penalise_repetition(logits_BV, seen_BV, self.settings.repetition_penalty)
        assert self.constraints is not None
        scores_BV = self.constraints.apply(scores_BV, read)
        if self.settings.samples:
            return draw(narrow(scores_BV, self.settings), draws())
        return scores_BV.argmax(dim=-1)

    def _stream(self, before: Sequence[int]) -> TextStream | None:
        return None if self.tokenizer is None else TextStream(self.tokenizer, self.settings.stop, before)


def _taken(places: Sequence[int], busy: int, closed: bool) -> int:
    """Return how many of the waiting prompts begin now.

    Prompts are read together: while others are being answered, a quarter of the places has to be free.

    Args:
        places: How many may be answered beside each waiting prompt, itself included.
        busy: Prompts that are being answered.
        closed: Whether none may join them.
    """
    taken = 0
    while taken < len(places) and busy + taken < places[taken] and not closed:
        taken += 1
    return taken if not busy or taken == len(places) or 4 * taken >= places[0] else 0


def _going_on(context: Any, answers: list[Answer]) -> list[Answer]:
    """Return the answers that have not ended; the others leave the batch."""
    kept = [row for row, answer in enumerate(answers) if answer.finish_reason is None]
    if kept:
        context.select(kept)
    return [answers[row] for row in kept]


def check_stops(settings: DecodingSettings, tokenizer: Any) -> None:
    """Raise LorakitError where stop texts are asked for and nothing can turn ids into text."""
    if settings.stop and tokenizer is None:
        raise LorakitError("stop texts can only be found with a tokenizer; give one, or leave stop out.")


def longest_answer(settings: DecodingSettings, limit: int | None, before: Sequence[int]) -> int:
    """Return how many tokens an answer can have, by the settings and by the positions left behind `before`."""
    # The last token need not be read any more, so one more than the positions can stand in a row.
    return settings.max_new_tokens if limit is None else min(settings.max_new_tokens, limit - len(before) + 1)


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
