"""Learn spans of documents that were cut out: T5's sentinels, or BART's infilling where a checkpoint has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, cast

import numpy as np

from lorakit.data.framing import padding_id
from lorakit.data.readers.faults import counted
from lorakit.data.source_text import SourceEncoder
from lorakit.errors import DataError
from lorakit.objectives.next_token import NextToken
from lorakit.objectives.settings import SpanCorruptionSettings
from lorakit.objectives.written import side_by_side, start_of
from lorakit.types import Batch, Example, Head, Job, Row

_NOTHING = np.zeros(0, dtype=np.int32)


@dataclass
class SpanCorruption(NextToken):
    """Span corruption (Raffel et al. 2020, arXiv:1910.10683, section 3.1.4).

    With sentinels (``<extra_id_0>``, ...) each span that was cut out is one sentinel in the source, and the target is
    each sentinel with its span, then EOS. Without them, but with a mask token, spans are cut out as in BART's text
    infilling (Lewis et al. 2020, arXiv:1910.13461, section 2.2), and the target is the whole text; BART's own share of
    hidden tokens is 0.3.

    Documents are cut into pieces of equal length so that both source and target fit `max_length`. Spans are drawn at
    collation from (seed, epoch, row, part) alone.
    """

    job: Job
    counted: Counter[str] = field(default_factory=Counter)
    """How many documents were left out, over all calls of `encode`."""

    name = "span_corruption"
    steady = False
    head = Head("seq2seq_lm")

    def __post_init__(self) -> None:
        self.label_logits_only = self.job.label_logits_only
        self.settings = cast(SpanCorruptionSettings, self.job.settings)
        self.encoder = SourceEncoder(self.job.tokenizer)
        self.sentinels = sentinels_of(self.job.tokenizer, self.job.config.get("vocab_size"))
        self.mask_id: int | None = self.job.tokenizer.mask_token_id
        if not len(self.sentinels) and self.mask_id is None:
            raise DataError(
                "span_corruption needs a tokenizer with sentinels (<extra_id_0>, <extra_id_1>, ...) or with a mask "
                "token, and this one has neither. Use another checkpoint, or objective: seq2seq_lm."
            )

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the objective for `job`.

        Raises:
            DataError: The tokenizer has neither sentinels nor a mask token.
        """
        return cls(job)

    @property
    def notes(self) -> list[str]:
        """Counted lines about documents that were left out."""
        count = self.counted["short"]
        return [f"{counted(count, 'document')} of a single token: left out, as nothing can be cut out"] if count else []

    def encode(self, rows: Sequence[Row], first: int = 0) -> list[Example]:
        """Cut documents into pieces, their ids as they stand; labels are drawn by `collate`.

        Args:
            rows: Canonical rows {text}.
            first: Number of the first row in reading order.

        Raises:
            DataError: `max_length` leaves no room for text.
        """
        examples = []
        for number, ids in enumerate(self.encoder.bare([row.fields["text"] for row in rows])):
            if len(ids) < 2:
                self.counted["short"] += 1
                continue
            pieces = np.array_split(ids, -(-len(ids) // self.room))
            examples += [
                Example(piece.astype(np.int32), _NOTHING, first + number, rows[number].where, part=part)
                for part, piece in enumerate(pieces)
            ]
        return examples

    def learned(self, example: Example) -> int:
        """Return how many tokens the target has."""
        return self._lengths(len(example.ids))[1]

    def collate(self, examples: Sequence[Example], packed: bool, epoch: int | None = None) -> Batch:
        """Cut spans out, and lay examples end to end in two rows (`packed`), or one below the other, padded."""
        pairs = [self.corrupted(example, epoch) for example in examples]
        return side_by_side(
            [self.encoder.as_source(source) for source, _ in pairs],
            [self.encoder.as_target(target) for _, target in pairs],
            [example.row for example in examples],
            start_of(self.job.config),
            padding_id(self.job.tokenizer),
            packed,
        )

    def corrupted(self, example: Example, epoch: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return source and target ids of a piece, unframed; without an epoch always the same ones."""
        drawn_epoch = 0 if epoch is None else epoch + 1
        draw = np.random.default_rng((self.job.seed, drawn_epoch, example.row, example.part))
        noise, spans = self._noise(len(example.ids))
        if len(self.sentinels):
            return with_sentinels(example.ids, noise_mask(len(example.ids), noise, spans, draw), self.sentinels)
        assert self.mask_id is not None
        lengths = span_lengths(noise, self.settings.mean_span, draw)
        return infilled(example.ids, lengths, self.mask_id, draw), example.ids

    @cached_property
    def room(self) -> int:
        """Tokens of the longest piece whose source and target both fit `max_length`."""
        # Equal pieces of at most 3 tokens have at least 2: one to read, and one to learn.
        for room in range(self.job.max_length, 2, -1):
            if max(self._lengths(room)) <= self.job.max_length:
                return room
        raise DataError(f"max_length {self.job.max_length} leaves no room for text. Raise data.max_length.")

    def _noise(self, length: int) -> tuple[int, int]:
        """Return how many tokens of a piece are cut out, and in how many spans."""
        noise = min(max(round(length * self.settings.noise_density), 1), length - 1)
        spans = max(round(noise / self.settings.mean_span), 1)
        most = len(self.sentinels) or spans
        return noise, min(spans, noise, length - noise, most)

    def _lengths(self, length: int) -> tuple[int, int]:
        """Return the longest source and target that a piece can have, frames included."""
        noise, spans = self._noise(length)
        source_frame, target_frame = len(self.encoder.as_source(_NOTHING)), len(self.encoder.as_target(_NOTHING))
        if len(self.sentinels):
            return source_frame + length - noise + spans, target_frame + noise + spans
        return source_frame + length, target_frame + length


def sentinels_of(tokenizer: Any, vocabulary: int | None = None) -> np.ndarray:
    """Return the ids of the sentinels 0, 1, ... in order, int32, empty where there are none.

    T5 and umT5 spell them ``<extra_id_0>``; in mT5 they are pieces of the vocabulary, with a word's beginning before.

    Args:
        tokenizer: A transformers tokenizer.
        vocabulary: Rows of the model's table of words; ids beyond it are no use.
    """
    numbers: dict[str, int] = tokenizer.get_vocab()
    found: list[int] = []
    while True:
        name = f"<extra_id_{len(found)}>"
        number = numbers.get(name, numbers.get(f"▁{name}"))
        if number is None or (vocabulary is not None and number >= vocabulary):
            return np.array(found, dtype=np.int32)
        found.append(number)


def noise_mask(length: int, noise: int, spans: int, draw: np.random.Generator) -> np.ndarray:
    """Return which of `length` tokens are cut out, shape (T,), bool: a kept part first, a span last, by turns."""
    lengths = np.stack((_parts(length - noise, spans, draw), _parts(noise, spans, draw)), axis=1).reshape(-1)
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def with_sentinels(ids: np.ndarray, noise_T: np.ndarray, sentinels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the source, a sentinel for each span, and the target, each sentinel before its span."""
    begins_T = noise_T & ~np.concatenate(([False], noise_T[:-1]))
    named_T = sentinels[np.maximum(begins_T.cumsum() - 1, 0)]
    source = np.where(begins_T, named_T, ids)[~noise_T | begins_T]
    target = np.insert(ids[noise_T], np.flatnonzero(begins_T[noise_T]), named_T[begins_T])
    return source, target


def span_lengths(noise: int, mean: float, draw: np.random.Generator) -> np.ndarray:
    """Return lengths of spans that add up to `noise` tokens, drawn from a Poisson distribution; some may be 0.

    There are at most as many spans as tokens, so that a source is never longer than its text.
    """
    lengths: list[int] = []
    while sum(lengths) < noise:
        lengths.append(min(int(draw.poisson(mean)), noise - sum(lengths)))
    while len(lengths) > noise:
        lengths.remove(0)
    return np.array(lengths)


def infilled(ids: np.ndarray, lengths: np.ndarray, mask_id: int, draw: np.random.Generator) -> np.ndarray:
    """Return `ids` with spans of the given lengths exchanged for one mask each; one of length 0 is a mask put in."""
    kept = len(ids) - int(lengths.sum())
    masks_S = np.zeros(kept + len(lengths), dtype=bool)
    masks_S[draw.choice(len(masks_S), len(lengths), replace=False)] = True
    steps_S = np.ones(len(masks_S), dtype=np.int64)
    steps_S[masks_S] = lengths
    places_S = steps_S.cumsum() - steps_S
    # Masks may stand behind the last token.
    return np.where(masks_S, mask_id, ids[np.minimum(places_S, len(ids) - 1)])


def _parts(items: int, parts: int, draw: np.random.Generator) -> np.ndarray:
    """Cut `items` into parts of at least 1, all ways alike probable; returns their lengths."""
    cuts = np.sort(draw.choice(items - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], cuts, [items])))
