"""How near written texts are to references: BLEU, chrF, ROUGE and exact match, each against several references a text.

BLEU cuts text into words by the script of the references (`tokenizer_for`). Korean has words of many endings, of which
BLEU counts each as another word; its morphemes would need sacrebleu's ``ko-mecab``, an extra. Read chrF there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lorakit.metrics.intervals import Array, Measure, mean, summed

Tokenizer = Literal["13a", "intl", "char"]

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Blocks of Unicode whose scripts put no space between words."""


@dataclass(frozen=True, slots=True)
class TextMeasures:
    """Measures of written texts; BLEU, chrF and ROUGE from 0 to 100, exact match from 0 to 1."""

    measures: dict[str, Measure]
    signatures: dict[str, str] = field(default_factory=dict)
    """How each was computed, in sacrebleu's notation, so that others get the same number."""


def texts(written: Sequence[str], references: Sequence[Sequence[str]]) -> TextMeasures:
    """Return BLEU (Papineni et al. 2002), chrF (Popović 2015), ROUGE-1, -2, -L (Lin 2004) and exact match.

    BLEU and chrF are of the whole corpus, ROUGE (F1) and exact match are means over rows, each by the best reference.
    ROUGE lowers case and does not stem.

    Args:
        written: One text a row; may be empty.
        references: What would have been right, at least one text a row; rows may have more or fewer.
    """
    from sacrebleu.metrics import BLEU, CHRF

    # sacrebleu takes one document a reference number, with None where a row has fewer.
    most = max(map(len, references))
    documents = [[row[number] if number < len(row) else None for row in references] for number in range(most)]
    measures: dict[str, Measure] = {}
    signatures: dict[str, str] = {}
    tokenizer = tokenizer_for([text for row in references for text in row])
    for name, metric in (("bleu", BLEU(tokenize=tokenizer, force=True)), ("chrf", CHRF())):
        measures[name] = _corpus(metric, written, documents)
        signatures[name] = str(metric.get_signature())
    measures |= _rouge(written, references)
    exact = [_plain(text) in map(_plain, row) for text, row in zip(written, references, strict=True)]
    return TextMeasures({**measures, "exact_match": mean(exact)}, signatures)


def tokenizer_for(references: Sequence[str]) -> Tokenizer:
    """Return how sacrebleu cuts texts of this script into words.

    ``char`` where most letters are of a script without spaces, ``intl`` (punctuation of all scripts) where most are not
    Latin, else ``13a``, which published figures are usually made with.
    """
    letters = [letter for text in references for letter in text if letter.isalpha()]
    if 2 * sum(map(_unspaced, letters)) > len(letters):
        return "char"
    latin = sum(ord(letter) < 0x250 or 0x1E00 <= ord(letter) < 0x1F00 for letter in letters)
    return "13a" if 2 * latin >= len(letters) else "intl"


class Words:
    """Words of any script, for ROUGE, whose own tokenizer drops every letter that is not ASCII.

    Runs of letters, marks and digits; each character alone in scripts that put no space between words.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text in lower case."""
        return "".join(map(_apart, text.lower())).split()


def _apart(letter: str) -> str:
    if _unspaced(letter):
        return f" {letter} "
    return letter if unicodedata.category(letter)[0] in "LMN" else " "


def _unspaced(letter: str) -> bool:
    code = ord(letter)
    return any(first <= code <= last for first, last in _UNSPACED)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _corpus(metric: Any, written: Sequence[str], documents: Sequence[Sequence[str | None]]) -> Measure:
    """Return a measure of the corpus from what sacrebleu counts a row: n-grams that match, and all."""

    def scores(sums_NS: Array) -> Array:
        return np.array([metric._compute_score_from_stats(sums).score for sums in sums_NS.tolist()])

    # The same two steps sacrebleu's own bootstrap takes; it offers them under no public name.
    return summed(np.array(metric._extract_corpus_statistics(written, documents), dtype=float), scores)


def _rouge(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Measure]:
    from rouge_score.rouge_scorer import RougeScorer

    names = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}
    scorer = RougeScorer(list(names), tokenizer=Words())
    found = [scorer.score_multi(row, text) for text, row in zip(written, references, strict=True)]
    return {name: mean([100 * one[key].fmeasure for one in found]) for key, name in names.items()}
