"""Two pieces of text in a row, or not: what next-sentence prediction learns from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lorakit.errors import DataError

_SENTENCE_END = re.compile(
    r"[.?!…؟।]+[\"'”’»)\]]*(?=\s)"  # marks that also stand inside words and numbers: white space must follow
    r"|[。？！]+[」』”’）]*"  # marks of scripts without spaces
    r"|(?<=\S)(?=[^\S\n]*\n)"
)


def sentence_ends(text: str) -> list[int]:
    """Return where each sentence of a text ends, in characters; white space between two belongs to the later one.

    A sentence ends at the end of a line, and at a full stop, question or exclamation mark that white space follows
    (in Chinese and Japanese: that anything follows). No list of abbreviations is kept, so that all languages are cut
    alike: ``Dr. Lee`` is two sentences.
    """
    return sorted({found.end() for found in _SENTENCE_END.finditer(text) if found.end() < len(text)} | {len(text)})


@dataclass(frozen=True, slots=True)
class Document:
    """One document as tokens."""

    ids: np.ndarray
    """Shape (T,), int32, without control tokens."""
    words: np.ndarray
    """Number of the word of each token, or IGNORED where it is never hidden, shape (T,), int32."""
    ends: np.ndarray
    """Where each sentence ends, in tokens, rising, the last one T."""
    row: int
    where: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pieces, of one document or of two."""

    first: Document
    second: Document
    begin: int
    """First token of the first piece in `first`."""
    cut: int
    """Token of `first` behind the first piece."""
    start: int
    """First token of the second piece in `second`."""
    stop: int

    @property
    def is_random(self) -> bool:
        """Whether the second piece comes from another document."""
        return self.second is not self.first


@dataclass
class Pairing:
    """Cuts documents into pairs of pieces (Devlin et al. 2019, arXiv:1810.04805, section 3.1 and appendix A.2).

    As many sentences as there is room for are cut in two at a random place. Half of the time the second part is
    exchanged for a run of sentences from another document, and its own sentences begin the next pair, as in the
    authors' code. A lone last sentence can only be followed by a random one; for each such pair a later one is a true
    one without a draw, so that half of the pairs stay true. Unlike the authors' code nothing is cut off but from the
    end of random second pieces, whose document is learned elsewhere.
    """

    documents: Sequence[Document]
    """At least two, none empty."""
    room: int
    """Most tokens of both pieces together, at least 2."""
    seed: int
    owed: int = field(default=0, init=False)
    """True pairs that must follow, since as many had to be random."""

    def pairs(self, number: int) -> Iterator[Pair]:
        """Yield the pairs of one document; draws depend on the seed and the row."""
        document = self.documents[number]
        draw = np.random.default_rng((self.seed, document.row))
        ends = _cut(document.ends, self.room // 2)
        begin, sentence = 0, 0
        while sentence < len(ends):
            # As many sentences as fit; the first always does.
            after = int(np.searchsorted(ends, begin + self.room, side="right"))
            lone = after == sentence + 1
            first_after = sentence + 1 if lone else int(draw.integers(sentence + 1, after))
            cut = int(ends[first_after - 1])
            if self._is_random(lone, draw):
                yield self._random(number, begin, cut, draw)
                sentence = first_after
            else:
                yield Pair(document, document, begin, cut, cut, int(ends[after - 1]))
                sentence = after
            begin = int(ends[sentence - 1])

    def _is_random(self, lone: bool, draw: np.random.Generator) -> bool:
        if lone:
            self.owed += 1
            return True
        if self.owed:
            self.owed -= 1
            return False
        return bool(draw.random() < 0.5)

    def _random(self, number: int, begin: int, cut: int, draw: np.random.Generator) -> Pair:
        other = int(draw.integers(len(self.documents) - 1))
        second = self.documents[other + (other >= number)]
        starts = np.concatenate(([0], second.ends[:-1]))
        start = int(starts[draw.integers(len(starts))])
        stop = min(len(second.ids), start + self.room - (cut - begin))
        return Pair(self.documents[number], second, begin, cut, start, stop)


def _cut(ends: np.ndarray, longest: int) -> np.ndarray:
    """Cut sentences longer than `longest` tokens, so that there is always room for a second piece."""
    starts = np.concatenate(([0], ends[:-1]))
    pieces = [np.append(np.arange(start + longest, end, longest), end) for start, end in zip(starts, ends, strict=True)]
    return np.concatenate(pieces).astype(np.int64)


def check_next_sentence(model_type: str) -> None:
    """Raise where a model type has no output for next sentences beside the one for words."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES,
        MODEL_FOR_PRETRAINING_MAPPING_NAMES,
    )

    known = sorted(MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES.keys() & MODEL_FOR_PRETRAINING_MAPPING_NAMES.keys())
    if model_type not in known:
        raise DataError(
            f"model type {model_type!r} has no output for next sentences (objective.nsp). Types that have one: "
            f"{', '.join(known)}. Set objective.nsp=false, or give a model of such a type."
        )
