"""What a model says on probes: scores, loss, and what it writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.adapters.bundle import Target
from lorakit.checkpoints import heads
from lorakit.errors import LorakitError
from lorakit.types import Example
from lorakit.workflows.probing import Probes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from lorakit.generation.answers import Generation

NEW_TOKENS = 24
"""Longest continuation of a probe."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What a model says on the probes."""

    logits: list[Tensor]
    """Scores that the loss of each probe reads, shape (N, O), float32."""
    loss: float
    """Sum of the mean losses of all terms, in nats."""
    written: list[Generation]
    """Greedy continuation of each probe, with the two best candidates of each step; empty where nothing is written."""


def observe(model: PreTrainedModel, target: Target, probes: Probes, if_not_finite: str) -> Observed:
    """Look at a model on probes.

    Args:
        model: In eval mode, perhaps inside PEFT's wrapper.
        target: What it was opened from.
        probes: Rows to look at.
        if_not_finite: What to say where a score is not finite.

    Raises:
        LorakitError: A score is not finite.
    """
    import torch

    # PEFT's wrapper hides what kind of model it is; the layers inside keep their pairs.
    plain: Any = model.get_base_model() if target.form == "lora" and hasattr(model, "peft_config") else model
    objective = probes.objective
    scores: list[Tensor] = []
    lost: dict[str, float] = defaultdict(float)
    counts: dict[str, float] = defaultdict(float)
    with torch.inference_mode():
        for example in probes.examples:
            batch = objective.collate([example], packed=False)
            outputs = objective.outputs(plain, batch)
            scores += [_as_rows(outputs[name]) for name in sorted(outputs)]
            for term, loss in objective.losses(outputs, batch).items():
                lost[term] += float(loss)
            for term, count in objective.counts(batch).items():
                counts[term] += count
    if not all(bool(scores_NO.isfinite().all()) for scores_NO in scores):
        raise LorakitError(if_not_finite)
    mean = sum(lost[term] / counts[term] for term in lost if counts[term])
    return Observed(scores, mean, _written(plain, target, probes.examples))


def _as_rows(scores: Tensor) -> Tensor:
    """Return scores as rows to choose from, shape (N, O), float32; those of a span, (B, T), are rows already."""
    return scores.float().reshape(-1, scores.shape[-1])


def _written(model: Any, target: Target, examples: Sequence[Example]) -> list[Generation]:
    """Return the greedy continuation of each example; nothing for a model that does not write."""
    from lorakit.generation.answers import Watcher
    from lorakit.generation.decoding import decode
    from lorakit.generation.settings import DecodingSettings

    if not heads.writes(target.head):
        return []
    settings = DecodingSettings(max_new_tokens=NEW_TOKENS)
    whole = target.head.task == "seq2seq_lm"
    prompts = [example.ids.tolist() if whole else _prompt(example) for example in examples]
    return decode(model, prompts, settings, target.eos_ids, watcher=Watcher(top=2))


def _prompt(example: Example) -> list[int]:
    """Return the ids before the first label: the prompt of an answer, the start of a document."""
    learned = (example.labels >= 0).nonzero()[0]
    return example.ids[: max(1, int(learned[0]))].tolist()
