"""What a model says on probes: scores, loss, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.adapters.bundle import Target
from lorakit.checkpoints import heads
from lorakit.errors import LorakitError
from lorakit.types import Example, Head
from lorakit.workflows.probing import Probes
from lorakit.workflows.scoring import mean_of, scored, tokens_at_once

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Observed:
    """What a model says on the probes."""

    logits: list[Tensor]
    """Scores that the loss reads, shape (N, O) each, float32."""
    loss: float
    """Sum of the mean losses of all terms, in nats."""
    texts: list[tuple[int, ...]]
    """Ids of a greedy continuation of each probe; empty of a model that writes none."""
    missed: list[float]
    """How far below its best logit the model scores a token of each text, at most: 0 where it would write the text."""


def observe(
    model: PreTrainedModel,
    target: Target,
    probes: Probes,
    if_not_finite: str,
    texts: list[tuple[int, ...]] | None = None,
) -> Observed:
    """Look at a model on probes.

    Args:
        model: In eval mode, perhaps inside PEFT's wrapper.
        target: What it was opened from.
        probes: Rows to look at.
        if_not_finite: What to say where a score is not finite.
        texts: Continuations that another model has written, which this one is held to; None: it writes its own.

    Raises:
        LorakitError: A score is not finite.
    """
    # PEFT's wrapper hides what kind of model it is; the layers inside keep their pairs.
    plain: Any = model.get_base_model() if target.form == "lora" and hasattr(model, "peft_config") else model
    batches = list(scored(plain, probes.objective, probes.examples, tokens_at_once(target)))
    logits = [
        rows_NO
        for group, _, outputs in batches
        for _, scores in sorted(outputs.items())
        for rows_NO in _as_rows(scores, group, target.head)
    ]
    if not all(bool(logits_NO.isfinite().all()) for logits_NO in logits):
        raise LorakitError(if_not_finite)
    loss = mean_of(probes.objective, ((batch, outputs) for _, batch, outputs in batches))
    return Observed(logits, loss, *_continued(plain, target, probes, texts))


def _as_rows(scores: Tensor, group: Sequence[Example], head: Head) -> list[Tensor]:
    """Return scores as rows to choose from, shape (N, O) each, float32; a span begins and ends in its own text."""
    if head.task == "question_answering":
        return [scores_T[None, : len(example.ids)].float() for scores_T, example in zip(scores, group, strict=True)]
    return [scores.float().reshape(-1, scores.shape[-1])]


def _continued(
    model: Any, target: Target, probes: Probes, texts: list[tuple[int, ...]] | None
) -> tuple[list[tuple[int, ...]], list[float]]:
    """Return a text for each probe, and how far the model is from writing it; nothing where it does not write."""
    from lorakit.generation.decoding import decode
    from lorakit.generation.rereading import missed
    from lorakit.generation.settings import DecodingSettings

    if not heads.writes(target.head):
        return [], []
    settings = DecodingSettings(max_new_tokens=probes.new_tokens)
    whole = target.head.task == "seq2seq_lm"
    prompts = [example.ids.tolist() if whole else _prompt(example) for example in probes.examples]
    if texts is None:
        texts = [answer.ids for answer in decode(model, prompts, settings, target.eos_ids)]
        return texts, [0.0] * len(texts)
    found = missed(model, prompts, texts, settings, target.eos_ids)
    return texts, [float(missed_U.max()) for missed_U in found]


def _prompt(example: Example) -> list[int]:
    """Return the ids before the first label: the prompt of an answer, the start of a document."""
    learned = (example.labels >= 0).nonzero()[0]
    return example.ids[: max(1, int(learned[0]))].tolist()
