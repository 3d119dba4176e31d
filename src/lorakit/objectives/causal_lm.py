"""Learn the next token: of answers (prompts are read, not learned), of assistant turns, or of whole documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self, cast

import numpy as np

from lorakit.data.encoding import TextEncoder
from lorakit.data.readers.faults import counted
from lorakit.errors import DataError
from lorakit.objectives.base import IGNORED, at_labels, read_by_model
from lorakit.objectives.next_token import NextToken
from lorakit.objectives.refusals import refuse_longer
from lorakit.objectives.settings import CausalLMSettings
from lorakit.types import Batch, Example, Head, Job, Row, TooLong


@dataclass
class CausalLM(NextToken):
    """Next-token prediction (Radford et al. 2018, equation 1), summed over labelled tokens.

    Labels are set by position, never by token id, so the EOS of an answer is learned also where pad and EOS are one.
    """

    settings: CausalLMSettings
    encoder: TextEncoder
    max_length: int
    """Longest example in tokens."""
    too_long: TooLong = "error"
    label_logits_only: bool = True
    """Whether the fast path of `fast/logits.py` is taken."""
    positions: int | None = None
    """Most tokens that the model reads; None where nothing bounds it."""
    counted: Counter[str] = field(default_factory=Counter)
    """How many rows each `too_long` policy has met, over all calls of `encode`."""

    name = "causal_lm"
    head = Head("causal_lm")

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the objective for `job`."""
        settings = cast(CausalLMSettings, job.settings)
        encoder = TextEncoder(job.tokenizer, job.style)
        return cls(settings, encoder, job.max_length, job.too_long, job.label_logits_only, job.positions)

    @property
    def notes(self) -> list[str]:
        """Counted lines about rows that were cut or left out."""
        sentences = {"drop": "left out", "truncate_prompt": "cut at the start of the prompt"}
        return [
            f"{counted(self.counted[policy], 'row')} longer than {self.max_length:,} tokens: {sentence}"
            for policy, sentence in sentences.items()
            if self.counted[policy]
        ]

    def encode(self, rows: Sequence[Row], first: int = 0) -> list[Example]:
        """Turn canonical rows into examples.

        Args:
            rows: Canonical rows of the encoder's format.
            first: Number of the first row in reading order.

        Raises:
            DataError: Rows are longer than `max_length` and `too_long` says so, or nothing is left to learn.
        """
        kind = self.encoder.style.format
        pieces_of = {"text": self._documents, "prompt_completion": self._pairs, "chat": self._chats}[kind]
        examples: list[Example] = []
        refused: list[str] = []
        for number, (row, pieces) in enumerate(zip(rows, pieces_of(rows), strict=True), start=first):
            if kind == "text":
                examples += self._windows(pieces[0][0], number, row.where)
                continue
            example = self._example(pieces, number, row.where)
            if len(example) > self.max_length:
                cut = self.too_long == "truncate_prompt"
                shorter = self._without_start(example, len(pieces[0][0])) if cut else None
                if shorter is None and self.too_long != "drop":
                    refused.append(
                        f"{row.where} ({len(example):,} tokens, {_answer_length(example):,} of them learned)"
                    )
                    continue
                self.counted[self.too_long] += 1
                if shorter is None:
                    continue
                example = shorter
            examples.append(example)
        self._refuse(refused)
        return examples

    def collate(self, examples: Sequence[Example], packed: bool, epoch: int | None = None) -> Batch:
        """Lay examples end to end in one row (`packed`), or one below the other, padded at the right.

        Padding carries the EOS id, no label, and attention mask 0.
        """
        inputs, starts = read_by_model([example.ids for example in examples], packed, self.encoder.eos_id)
        # The position before a labelled token predicts it; the first token of a row has none before it.
        before = [np.flatnonzero(example.labels[1:] != IGNORED) for example in examples]
        learned = [start + before_L for start, before_L in zip(starts, before, strict=True)]
        targets = [example.labels[before_L + 1] for example, before_L in zip(examples, before, strict=True)]
        return at_labels(examples, inputs, learned, targets, packed)

    def _documents(self, rows: Sequence[Row]) -> Iterable[list[tuple[list[int], bool]]]:
        return [[(ids, True)] for ids in self.encoder.documents([row.fields["text"] for row in rows])]

    def _pairs(self, rows: Sequence[Row]) -> Iterable[list[tuple[list[int], bool]]]:
        prompts = self.encoder.prompts([row.fields["prompt"] for row in rows])
        answers = self.encoder.answers([row.fields["completion"] for row in rows])
        return [[(prompt, False), (answer, True)] for prompt, answer in zip(prompts, answers, strict=True)]

    def _chats(self, rows: Sequence[Row]) -> Iterable[list[tuple[list[int], bool]]]:
        for row in rows:
            try:
                yield self.encoder.chat(row.fields["messages"])
            except DataError as error:
                raise DataError(f"{row.where}: {error}") from error

    def _example(self, pieces: Sequence[tuple[Sequence[int], bool]], number: int, where: str) -> Example:
        ids = np.array([token for piece, _ in pieces for token in piece], dtype=np.int32)
        labels = ids.copy()
        start = 0
        for piece, is_learned in pieces:
            if not (is_learned or self.settings.train_on_prompt):
                labels[start : start + len(piece)] = IGNORED
            start += len(piece)
        return Example(ids, labels, number, where)

    def _windows(self, ids: Sequence[int], number: int, where: str) -> list[Example]:
        """Cut a document into windows that share one token, so that every token but the first is learned once."""
        whole = np.asarray(ids, dtype=np.int32)
        windows = []
        for start in range(0, max(1, len(whole) - 1), self.max_length - 1):
            window = whole[start : start + self.max_length]
            labels = window.copy()
            labels[0] = IGNORED
            windows.append(Example(window, labels, number, where))
        return windows

    def _without_start(self, example: Example, prompt: int) -> Example | None:
        """Cut the prompt at its start until the example fits; None where that would cut into an answer.

        Args:
            example: Too long.
            prompt: Tokens before its first answer.
        """
        prefix = len(self.encoder.prefix_ids)
        surplus = len(example) - self.max_length
        cut = slice(prefix, prefix + surplus)
        # At least one prompt token must stay before the answer, or its first token could not be learned.
        if surplus >= prompt - prefix:
            return None
        return Example(np.delete(example.ids, cut), np.delete(example.labels, cut), example.row, example.where)

    def _refuse(self, refused: Sequence[str]) -> None:
        beside = " even without the prompt" if self.too_long == "truncate_prompt" else ""
        if beside:
            cure = "leave such rows out: --set data.too_long=drop"
        else:
            cure = (
                "say what to do with such rows: --set data.too_long=drop, or truncate_prompt (which keeps every answer "
                "whole)"
            )
        refuse_longer(refused, self.max_length, self.positions, cure, beside=beside)


def _answer_length(example: Example) -> int:
    return int((example.labels != IGNORED).sum())
