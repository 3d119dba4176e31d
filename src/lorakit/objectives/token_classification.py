"""Learn a tag of each word: the first piece of a word carries its tag, its other pieces are only read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lorakit.data.framing import Framed, FramedEncoder, cut, padding_id
from lorakit.data.readers.faults import told
from lorakit.data.tagged import as_bio
from lorakit.errors import DataError, nearest
from lorakit.objectives.base import IGNORED, Shared, at_labels, hits, read_by_model, word_loss, word_scores
from lorakit.objectives.predicting import scored
from lorakit.objectives.refusals import TRUNCATE_OR_DROP, nothing_apart, refuse, refuse_longer
from lorakit.objectives.settings import TokenClassificationSettings
from lorakit.objectives.tags import OUTSIDE, entities, in_order, repaired, word_borders
from lorakit.objectives.windows import windows
from lorakit.types import Batch, Example, Head, Job, Row

if TYPE_CHECKING:
    from torch import Tensor, nn

_REPAIR = "--set objective.broken_tags=repair lets such tags begin an entity, which also turns IOB1 into IOB2"


@dataclass
class TokenClassification(Shared):
    """Cross-entropy of the tag of each word, read at its first piece (Devlin et al. 2019, section 5.3)."""

    job: Job
    counted: Counter[str] = field(default_factory=Counter)
    """What was mended, cut or left out, over all calls of `encode`."""

    name = "token_classification"

    def __post_init__(self) -> None:
        """Read the tags from the job."""
        self.encoder = FramedEncoder(self.job.tokenizer)
        self.padding = padding_id(self.job.tokenizer)
        given = self.job.labels or tuple(self.job.settings.labels or ())
        # A model trained elsewhere may tell BIOES tags apart: what it says is read as rows are.
        self.labels = tuple(as_bio(given))
        self._numbers = {label: number for names in (self.labels, given) for number, label in enumerate(names)}

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the objective for `job`, whose settings `resolved` has filled."""
        return cls(job)

    @staticmethod
    def resolved(
        settings: TokenClassificationSettings, rows: Sequence[Row], held: Sequence[Row] = ()
    ) -> TokenClassificationSettings:
        """Return the settings with the tags of the training rows, sorted, ``O`` before all others.

        Args:
            settings: As in the recipe.
            rows: Canonical training rows.
            held: Canonical evaluation rows, for messages.

        Raises:
            DataError: There are not two different tags.
        """
        mend = settings.broken_tags == "repair"

        def tags_of(some: Sequence[Row]) -> set[str]:
            return {tag for row in some for tag in (repaired(row.fields["tags"])[0] if mend else row.fields["tags"])}

        labels = in_order(tags_of(rows)) if settings.labels is None else list(dict.fromkeys(as_bio(settings.labels)))
        if len(set(labels)) < 2:
            found = f"the tags are {', '.join(map(repr, labels)) or 'none'}"
            raise nothing_apart(found, "tag", in_order(tags_of(held) - {*labels}))
        return settings.model_copy(update={"labels": labels})

    @property
    def head(self) -> Head:
        """Scores of the tags, in their order, at each token."""
        return Head("token_classification", self.labels)

    @property
    def notes(self) -> list[str]:
        """Counted lines about rows and words that were cut, left out or mended."""
        longer = f"longer than {self.job.max_length:,} tokens"
        sentences = {
            "drop": ("row", f"{longer}: left out"),
            "truncate": ("row", f"{longer}: cut at the end"),
            "cut": ("word", "cut off: neither learned nor measured"),
            "repaired": ("inside tag", "that nothing begins: made to begin an entity"),
            "unread": ("word", f"without a character that the tokenizer knows: the tag is always {OUTSIDE!r}"),
        }
        return told(self.counted, sentences)

    def encode(self, rows: Sequence[Row], first: int = 0) -> list[Example]:
        """Turn rows of words with tags into examples, a label at the first piece of each word.

        Args:
            rows: Canonical rows {tokens, tags}.
            first: Number of the first row in reading order.

        Raises:
            DataError: A tag is unknown; or an inside tag follows nothing, or a row is too long, and the settings do
                not say otherwise.
        """
        tags = self._tags(rows)
        examples: list[Example] = []
        refused: list[str] = []
        framed_rows = self.encoder.words([row.fields["tokens"] for row in rows])
        for number, (row, framed, numbers) in enumerate(zip(rows, framed_rows, tags, strict=True), start=first):
            words, _ = first_pieces(framed)
            self.counted["unread"] += len(numbers) - len(words)
            if not len(words):
                continue
            if len(framed) > self.job.max_length:
                if self.job.too_long not in ("drop", "truncate"):
                    refused.append(f"{row.where} ({len(framed):,} tokens)")
                    continue
                self.counted[self.job.too_long] += 1
                if self.job.too_long == "drop":
                    continue
                framed = cut(framed, self.job.max_length)
            kept, positions = first_pieces(framed)
            self.counted["cut"] += len(words) - len(kept)
            labels = np.full(len(framed), IGNORED, dtype=np.int32)
            labels[positions] = numbers[kept]
            examples.append(Example(framed.ids, labels, number, row.where))
        refuse_longer(refused, self.job.max_length, self.job.positions, TRUNCATE_OR_DROP)
        return examples

    def collate(self, examples: Sequence[Example], packed: bool, epoch: int | None = None) -> Batch:
        """Lay examples end to end in one row (`packed`), or one below the other, padded at the right."""
        first_position = self.job.family.first_position
        inputs, starts = read_by_model([example.ids for example in examples], packed, self.padding, first_position)
        places = [np.flatnonzero(example.labels != IGNORED) for example in examples]
        learned = [start + places_L for start, places_L in zip(starts, places, strict=True)]
        targets = [example.labels[places_L] for example, places_L in zip(examples, places, strict=True)]
        return at_labels(examples, inputs, learned, targets, packed)

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return the number of words with a label."""
        return {"tags": float(len(batch.targets["targets_L"]))}

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``logits_LO``, the scores of the tags at the first piece of each word, float32."""
        arguments = {"use_cache": False} if self.job.family.kind == "decoder" else {}
        return {"logits_LO": word_scores(model, batch, fast=False, **arguments)[0]}

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy in nats summed over words, shape (), float32."""
        return {"tags": word_loss(outputs["logits_LO"], batch.targets["targets_L"])}

    def tallies(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, tuple[float, float]]:
        """Return how many words have the right tag."""
        return {"accuracy": hits(outputs["logits_LO"], batch.targets["targets_L"])}

    def predict(self, model: nn.Module, rows: Sequence[Row], top: int = 5, tokens: int = 2048) -> list[dict[str, Any]]:
        """Return the tags of each row's words, and the entities that they describe; rows need no tags.

        Words that do not fit in one input are read in windows that overlap by a quarter; the window in which a word
        stands farther from the border decides.

        Args:
            model: In eval mode, with this objective's head.
            rows: Rows with ``tokens``, or with ``text``, which is cut into words at white space and punctuation.
            top: Not used: a word has one tag.
            tokens: Tokens computed at once, padding included.

        Returns:
            A mapping a row: {tokens, tags, entities: [{text, label, start, end, probability}, ...]}. Inside tags that
            nothing begins begin an entity. `start` and `end` are characters of ``text``, or of the words joined by
            spaces; `probability` is the mean of those of its words' tags.

        Raises:
            DataError: `max_length` leaves no room for words.
        """
        texts = [_read(row) for row in rows]
        words = [[text[begin:end] for begin, end in borders] for text, borders in texts]
        tags = [[OUTSIDE] * len(row) for row in words]
        probabilities = [[0.0] * len(row) for row in words]
        for examples, batch, outputs in scored(self, model, self._unlabelled(rows, words), tokens):
            shares_L, best_L = outputs["logits_LO"].softmax(-1).max(-1)
            rows_L = np.repeat([example.row for example in examples], [self.learned(example) for example in examples])
            places = zip(rows_L.tolist(), batch.targets["targets_L"].tolist(), strict=True)
            for (row, word), best, share in zip(places, best_L.tolist(), shares_L.tolist(), strict=True):
                tags[row][word] = self.labels[best]
                probabilities[row][word] = share
        return [
            {"tokens": row, "tags": repaired(said)[0], "entities": _described(text, borders, said, shares)}
            for row, (text, borders), said, shares in zip(words, texts, tags, probabilities, strict=True)
        ]

    def _tags(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Return the numbers of each row's tags."""
        broken: list[str] = []
        found = []
        for row in rows:
            words, tags = row.fields["tokens"], row.fields["tags"]
            mended, places = repaired(tags)
            if self.job.settings.broken_tags == "repair":
                tags = mended
                self.counted["repaired"] += len(places)
            else:
                broken += [f"{row.where} word {place + 1} {words[place]!r} has {tags[place]!r}" for place in places]
            found.append([self._number(tag, row, place) for place, tag in enumerate(tags)])
        refuse(broken, "inside tags follow nothing that begins their entity", f"Mend them, or {_REPAIR}.")
        return [np.array(numbers, dtype=np.int32) for numbers in found]

    def _number(self, tag: str, row: Row, place: int) -> int:
        if tag not in self._numbers:
            raise DataError(
                f"{row.where} word {place + 1} {row.fields['tokens'][place]!r}: the tag {tag!r} is not among the "
                f"{len(self.labels)} that are learned. {nearest(tag, self.labels)} Mend it, or name all tags in "
                f"objective.labels."
            )
        return self._numbers[tag]

    def _unlabelled(self, rows: Sequence[Row], words: Sequence[Sequence[str]]) -> list[Example]:
        """Return windows of the rows; labels are the numbers of the words that a window decides."""
        examples = []
        for number, framed in enumerate(self.encoder.words(words)):
            kept, positions = first_pieces(framed)
            cuts = windows(framed, framed.of_text, self.job.max_length, shared=self.job.max_length // 4)
            borders = [0, *((one.end + other.begin) // 2 for one, other in pairwise(cuts)), cuts[-1].end]
            for part, (window, begin, end) in enumerate(zip(cuts, borders, borders[1:], strict=False)):
                numbers = positions - window.first
                decided = (numbers >= begin) & (numbers < end)
                labels = np.full(len(window.framed), IGNORED, dtype=np.int32)
                labels[positions[decided] - window.begin] = kept[decided]
                if decided.any():
                    examples.append(Example(window.framed.ids, labels, number, rows[number].where, part=part))
        return examples


def first_pieces(framed: Framed) -> tuple[np.ndarray, np.ndarray]:
    """Return the words that have tokens, by number, and the position of the first token of each; shape (W,) both."""
    words, positions = np.unique(framed.words, return_index=True)
    return words[words >= 0], positions[words >= 0]


def _read(row: Row) -> tuple[str, list[tuple[int, int]]]:
    """Return a row's text, and where its words stand in it."""
    if "tokens" not in row.fields:
        return row.fields["text"], word_borders(row.fields["text"])
    words = row.fields["tokens"]
    ends = np.cumsum([len(word) + 1 for word in words], dtype=int) - 1
    return " ".join(words), [(int(end) - len(word), int(end)) for word, end in zip(words, ends, strict=True)]


def _described(
    text: str, borders: Sequence[tuple[int, int]], tags: Sequence[str], probabilities: Sequence[float]
) -> list[dict[str, Any]]:
    found = []
    for label, first, end in entities(tags):
        start, stop = borders[first][0], borders[end - 1][1]
        probability = float(np.mean(probabilities[first:end]))
        found.append(
            {"text": text[start:stop], "label": label, "start": start, "end": stop, "probability": probability}
        )
    return found
