"""Learn to write a target from a source: translation, summarisation, answers to questions as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from lorakit.data.framing import cut, padding_id
from lorakit.data.readers.faults import counted
from lorakit.data.source_text import SourceEncoder
from lorakit.objectives.next_token import NextToken
from lorakit.objectives.refusals import refuse_longer
from lorakit.objectives.written import side_by_side, start_of
from lorakit.types import Batch, Example, Head, Job, Row

if TYPE_CHECKING:
    import numpy as np

    from lorakit.data.framing import Framed

_SENTENCES = {
    "drop": "longer than {:,} tokens: left out",
    "truncate": "longer than {:,} tokens: cut at the end of the source",
    "unanswered": "without an answer: left out, as there is nothing to write",
}


@dataclass
class Seq2SeqLM(NextToken):
    """Text to text (Raffel et al. 2020, arXiv:1910.10683, section 2.4): cross-entropy over the tokens of targets.

    `max_length` bounds the source and the target each. Where a row is too long, its source is cut at the end, as the
    task prefix stands at its start; a target is never cut, for its end would be unlearned.
    """

    job: Job
    counted: Counter[str] = field(default_factory=Counter)
    """How many rows were left out or cut, by reason, over all calls of `encode`."""

    name = "seq2seq_lm"
    head = Head("seq2seq_lm")

    def __post_init__(self) -> None:
        self.label_logits_only = self.job.label_logits_only

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the objective for `job`."""
        return cls(job)

    @cached_property
    def encoder(self) -> SourceEncoder:
        """Frames sources and targets."""
        # A tokenizer may not know what its checkpoint translates to; generation begins with this id.
        language = self.job.config.get("decoder_start_token_id")
        return SourceEncoder(self.job.tokenizer, self.job.settings.prefix, language)

    @property
    def notes(self) -> list[str]:
        """Counted lines about rows that were cut or left out."""
        return [
            f"{counted(self.counted[reason], 'row')} {sentence.format(self.job.max_length)}"
            for reason, sentence in _SENTENCES.items()
            if self.counted[reason]
        ]

    def encode(self, rows: Sequence[Row], first: int = 0) -> list[Example]:
        """Turn canonical rows into examples.

        Args:
            rows: Canonical rows {source, target}, {prompt, completion} or {question, context, answers}; of several
                answers the first is learned.
            first: Number of the first row in reading order.

        Raises:
            DataError: Rows are longer than `max_length` and the recipe says so, or would lose part of their target.
        """
        texts = {number: pair for number, row in enumerate(rows) if (pair := source_and_target(row.fields)) is not None}
        self.counted["unanswered"] += len(rows) - len(texts)
        sources = self.encoder.sources([source for source, _ in texts.values()])
        targets = self.encoder.targets([target for _, target in texts.values()])
        examples: list[Example] = []
        refused: list[str] = []
        for number, source, target in zip(texts, sources, targets, strict=True):
            if max(len(source), len(target)) > self.job.max_length:
                shorter = self._shorter(source, target)
                if shorter is None and self.job.too_long != "drop":
                    refused.append(f"{rows[number].where} (source {len(source):,} tokens, target {len(target):,})")
                    continue
                self.counted["drop" if shorter is None else "truncate"] += 1
                if shorter is None:
                    continue
                source = shorter
            examples.append(Example(source.ids, target, first + number, rows[number].where, target))
        self._refuse(refused)
        return examples

    def collate(self, examples: Sequence[Example], packed: bool, epoch: int | None = None) -> Batch:
        """Lay examples end to end in two rows (`packed`), or one below the other, padded at the right."""
        targets = [example.target for example in examples if example.target is not None]
        rows = [example.row for example in examples]
        return side_by_side([example.ids for example in examples], targets, rows, self._start, self._padding, packed)

    @cached_property
    def _start(self) -> int | None:
        return start_of(self.job.config)

    @cached_property
    def _padding(self) -> int:
        return padding_id(self.job.tokenizer)

    def _shorter(self, source: Framed, target: np.ndarray) -> Framed | None:
        """Cut the source at its end; None where the recipe does not ask for it, or the target itself is too long."""
        if not self.job.too_long.startswith("truncate") or len(target) > self.job.max_length:
            return None
        return cut(source, self.job.max_length)

    def _refuse(self, refused: Sequence[str]) -> None:
        if self.job.too_long == "error":
            cure = (
                "say what to do with such rows: --set data.too_long=drop, or truncate (which cuts sources at their end "
                "and keeps every target whole)"
            )
        else:
            cure = "leave such rows out: --set data.too_long=drop; a target is never cut"
        beside = ", which bounds source and target each"
        refuse_longer(refused, self.job.max_length, self.job.positions, cure, beside=beside)


def source_and_target(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what is read and what is written of a canonical row; None where a question has no answer."""
    if "source" in fields:
        return fields["source"], fields["target"]
    if "prompt" in fields:
        return fields["prompt"], fields["completion"]
    if not fields["answers"]:
        return None
    return f"question: {fields['question']} context: {fields['context']}", fields["answers"][0]["text"]
