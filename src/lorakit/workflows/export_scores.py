"""What any head gives in another runtime against the target in float32: texts alone, and padded side by side."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from lorakit.adapters.bundle import Target
from lorakit.checkpoints import heads
from lorakit.data.batching import micro_batches
from lorakit.workflows.export_agreement import NEW_TOKENS, Agreement, gap, is_same, largest, prompt_of, written_by
from lorakit.workflows.probing import Probes
from lorakit.workflows.scoring import mean_of, tokens_at_once

if TYPE_CHECKING:
    from lorakit.types import Batch, Head
    from lorakit.workflows.export_agreement import Runtime

_WORDS = ("logits", "prediction_logits")
"""Outputs that may be scores of words, which an objective reads at some positions only."""


class Reader(Protocol):
    """What reads an export a batch at a time."""

    def __call__(self, *_: Any, **inputs: Any) -> Mapping[str, Tensor]:
        """Return what the head gives for a padded batch, by the names of transformers, float32."""


@torch.inference_mode()
def compare(model: Any, target: Target, probes: Probes, reader: Reader, bound: float) -> Agreement:
    """Compare all that a head gives to texts, alone and padded side by side, and the greedy text after each.

    Args:
        model: The target in float32, outside of PEFT's wrapper.
        target: What it was opened from.
        probes: Texts with labels.
        reader: What was written, loaded; of a model that writes, a `Runtime` too.
        bound: Share of the largest score by which two choices may differ and still be one.

    Raises:
        LorakitError: A score of the target is not finite.
    """
    objective, arguments = probes.objective, {} if target.base.family.kind == "encoder" else {"use_cache": False}
    singles = [[example] for example in probes.examples]
    together = max(micro_batches(probes.examples, tokens_at_once(target), packed=False), key=len)
    before, after, gaps = [], [], []
    for number, group in enumerate((*singles, together)):
        batch = objective.collate(group, packed=False)
        output, found = model(**batch.inputs, **arguments), reader(**batch.inputs)
        expected = {name: output[name].float() for name in found}
        for name, scores in expected.items():
            real = _real(name, batch, target.head)
            gaps.append(gap(scores[real], found[name][real]))
        if number < len(singles):
            before.append((batch, objective.outputs(_Said(expected), batch)))
            after.append((batch, objective.outputs(_Said(found), batch)))
    difference, score = largest(gaps, target)
    writes = heads.writes(target.head)
    same = _same_text(model, target, probes, cast("Runtime", reader), bound * score) if writes else None
    return Agreement(difference, score, mean_of(objective, before), mean_of(objective, after), same)


def _real(name: str, batch: Batch, head: Head) -> Tensor | slice:
    """Return which scores are of the texts: those of padding mean nothing, and may differ."""
    whole = name == "seq_relationship_logits" or head.task in ("sequence_classification", "seq2seq_lm")
    return slice(None) if whole else batch.inputs["attention_mask"].bool()


def _same_text(model: Any, target: Target, probes: Probes, runtime: Runtime, bound: float) -> float:
    """Return the share of texts continued alike, in [0, 1]."""
    longest = (
        target.base.max_positions or max(len(example.ids) for example in probes.examples) + NEW_TOKENS
    ) - NEW_TOKENS
    whole = target.head.task == "seq2seq_lm"
    prompts = [example.ids.tolist() if whole else prompt_of(example, longest) for example in probes.examples]
    texts = written_by(model, target, prompts)
    same = [is_same(text, runtime.continued(ids, NEW_TOKENS), bound) for text, ids in zip(texts, prompts, strict=True)]
    return sum(same) / len(same)


class _Said(nn.Module):
    """Scores that were computed elsewhere, given to an objective as a model would."""

    def __init__(self, scores: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.scores = scores
        self.output = nn.Identity()

    def get_output_embeddings(self) -> nn.Module:
        """Return where an objective chooses the positions whose words it scores."""
        return self.output

    def forward(self, **_: Any) -> SimpleNamespace:
        """Return all scores, those of words through the layer above."""
        said = {name: self.output(each) if name in _WORDS else each for name, each in self.scores.items()}
        return SimpleNamespace(**said)
