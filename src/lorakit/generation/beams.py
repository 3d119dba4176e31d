"""Beam search: keep the k most probable beginnings of an answer, not the one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lorakit.generation.answers import FinishReason, Generation
from lorakit.generation.constraints import Constraints
from lorakit.generation.decoding import check_stops, checked_log_probabilities, longest_answer
from lorakit.generation.encoded import context_of
from lorakit.generation.sampling import penalise_repetition
from lorakit.generation.settings import DecodingSettings
from lorakit.generation.streaming import TextStream


@dataclass(frozen=True, slots=True)
class _Beam:
    """A beginning of an answer, or a whole one."""

    ids: tuple[int, ...]
    score: float
    """Sum of log-probabilities after the repetition penalty; of a whole answer, divided by length ** length_penalty."""
    log_probability: float
    """Sum of log-probabilities by the model."""


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    prompt: Sequence[int],
    settings: DecodingSettings,
    eos_ids: Collection[int],
    tokenizer: Any = None,
    *,
    joined: bool = True,
    number: int = 0,
) -> Generation:
    """Write one answer by beam search.

    The search keeps `num_beams` open beams and the `num_beams` best finished ones. A finished beam's score is its
    log-probability over length ** length_penalty (Wu et al. 2016, arXiv:1609.08144, section 7, with the plain power of
    the length). It ends when no open beam, at its present length, beats the worst finished one. Both are transformers'
    choices, so that the answer equals `generate(num_beams=k)` token for token.

    Args:
        model: A causal language model or an encoder-decoder in eval mode, on its device.
        prompt: Ids, or those of the source, at least one.
        settings: All but what concerns draws is read.
        eos_ids: Ids that end an answer.
        tokenizer: Turns ids into text; left out, `text` is empty.
        joined: Whether the answer goes on from its prompt mid-text.
        number: Number of the prompt, for the result.

    Raises:
        LorakitError: The prompt is empty or too long, the logits are not finite, or stop texts lack a tokenizer.
    """
    check_stops(settings, tokenizer)
    context = context_of(model, [prompt])
    (before,) = context.before
    longest = longest_answer(settings, context.limit, before)
    constraints = Constraints(model, longest, eos_ids)
    joined = joined and context.continues
    written = _Writing(before, settings, frozenset(eos_ids), constraints, tokenizer, joined)
    power = 1.0 if settings.length_penalty is None else settings.length_penalty
    logits_BV = context.read_prompts()
    open_beams = [_Beam((), 0.0, 0.0)]
    finished: list[_Beam] = []
    for length in range(1, longest + 1):
        candidates = _extend(open_beams, logits_BV, written)
        ended = [length == longest or written.ends(beam) for _, beam in candidates]
        finished += [
            _Beam(beam.ids, beam.score / length**power, beam.log_probability)
            # Candidates below the first `num_beams` only stand in for those that end.
            for (_, beam), end in list(zip(candidates, ended, strict=True))[: settings.num_beams]
            if end
        ]
        finished = sorted(finished, key=lambda beam: -beam.score)[: settings.num_beams]
        going = [pair for pair, end in zip(candidates, ended, strict=True) if not end][: settings.num_beams]
        if not going or (
            len(finished) == settings.num_beams and going[0][1].score / length**power <= finished[-1].score
        ):
            break
        context.select([parent for parent, _ in going])
        open_beams = [beam for _, beam in going]
        logits_BV = context.read(torch.tensor([[beam.ids[-1]] for beam in open_beams], device=logits_BV.device))[:, -1]
    return written.generation(finished[0], number)


@dataclass(frozen=True, slots=True)
class _Writing:
    """What stays the same while one answer is searched."""

    before: Sequence[int]
    """What is read before the answer."""
    settings: DecodingSettings
    eos_ids: frozenset[int]
    constraints: Constraints
    tokenizer: Any
    joined: bool

    def ends(self, beam: _Beam) -> bool:
        """Whether the beam's last token ends the answer."""
        return beam.ids[-1] in self.eos_ids or (bool(self.settings.stop) and self._read(beam)[1])

    def generation(self, beam: _Beam, number: int) -> Generation:
        """Return a beam that has ended as the result."""
        text, stopped = self._read(beam)
        reason: FinishReason = "context"
        if beam.ids[-1] in self.eos_ids:
            reason = "eos"
        elif stopped:
            reason = "stop"
        elif len(beam.ids) == self.settings.max_new_tokens:
            reason = "length"
        return Generation(
            prompt=number,
            sample=0,
            ids=beam.ids,
            text=text,
            finish_reason=reason,
            log_probability=beam.log_probability,
        )

    def _read(self, beam: _Beam) -> tuple[str, bool]:
        """Return the text of a beam, and whether a stop text was found in it."""
        if self.tokenizer is None:
            return "", False
        stream = TextStream(self.tokenizer, self.settings.stop, self.before if self.joined else ())
        spoken = beam.ids[:-1] if beam.ids[-1] in self.eos_ids else beam.ids
        return stream.push(*spoken) + stream.close(), stream.stopped


def _extend(beams: list[_Beam], logits_BV: Tensor, written: _Writing) -> list[tuple[int, _Beam]]:
    """Return the best one-token extensions with the number of the beam each extends, best first.

    There are enough that, after all that end with an end-of-sequence token, `num_beams` are left. What a checkpoint
    forbids has a score of minus infinity, and loses against everything else.
    """
    settings = written.settings
    log_probabilities_BV = checked_log_probabilities(logits_BV, step=len(beams[0].ids) + 1)
    scores_BV = log_probabilities_BV
    if settings.repetition_penalty != 1:
        seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
        for row, beam in enumerate(beams):
            seen_BV[row, [*written.before, *beam.ids]] = True
        scores_BV = penalise_repetition(log_probabilities_BV, seen_BV, settings.repetition_penalty)
    scores_BV = written.constraints.apply(scores_BV, [[*written.before, *beam.ids] for beam in beams])
    scores_BV = scores_BV + torch.tensor([[beam.score] for beam in beams], device=logits_BV.device)
    wanted = max(2, 1 + len(written.eos_ids)) * settings.num_beams
    best = scores_BV.flatten().topk(min(wanted, scores_BV.numel()))
    vocabulary = logits_BV.shape[1]
    extended = []
    for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        parent, token = divmod(place, vocabulary)
        gain = float(log_probabilities_BV[parent, token])
        beam = beams[parent]
        extended.append((parent, _Beam((*beam.ids, token), score, beam.log_probability + gain)))
    return extended
