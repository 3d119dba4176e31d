"""How well spans are found: entities by their tags, and answers in a context."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lorakit.metrics.classes import ClassScore
from lorakit.metrics.intervals import Measure, mean, quotient, ratio, summed

Span = tuple[int, int, str]
"""First word, one behind the last, kind of entity."""


def has_entities(labels: Sequence[str]) -> bool:
    """Return whether tags mark entities by their first and further words: ``B-PER``, ``I-PER`` and ``O`` alone."""
    return any(label.startswith("B-") for label in labels) and all(
        label == "O" or label.startswith(("B-", "I-")) for label in labels
    )


def spans_of(tags: Sequence[str]) -> set[Span]:
    """Return the entities of a row of IOB2 tags, strictly: an inside tag that nothing of its kind begins is none."""
    from seqeval.scheme import IOB2, Tokens

    return {(one.start, one.end, one.tag) for one in Tokens(list(tags), IOB2).entities}


def entities(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Measure]:
    """Return precision, recall and F1 of entities over all rows; one counts where both ends and its kind are right.

    The tables of CoNLL-2003 (Tjong Kim Sang & De Meulder 2003, section 3) are made so, but read IOB2 less strictly.
    """
    counts_RS = np.array(
        [
            (len(right & said), len(said), len(right))
            for right, said in zip(map(spans_of, true), map(spans_of, predicted), strict=True)
        ],
        dtype=float,
    )
    return {
        "entity_f1": summed(counts_RS, lambda sums: quotient(2 * sums[:, 0], sums[:, 1] + sums[:, 2])),
        "entity_precision": ratio(counts_RS[:, 0], counts_RS[:, 1]),
        "entity_recall": ratio(counts_RS[:, 0], counts_RS[:, 2]),
    }


def entity_table(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> list[ClassScore]:
    """Return precision, recall and F1 of each kind of entity, in the order of their names."""
    hits: Counter[str] = Counter()
    said: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for one, other in zip(map(spans_of, true), map(spans_of, predicted), strict=True):
        right.update(kind for *_, kind in one)
        said.update(kind for *_, kind in other)
        hits.update(kind for *_, kind in one & other)
    return [
        ClassScore(
            kind,
            _share(hits[kind], said[kind]),
            _share(hits[kind], right[kind]),
            _share(2 * hits[kind], said[kind] + right[kind]),
            right[kind],
        )
        for kind in sorted(said | right)
    ]


def tag_accuracy(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Measure:
    """Return the share of words whose tag is right."""
    hits = [sum(map(str.__eq__, one, other)) for one, other in zip(true, predicted, strict=True)]
    return ratio(hits, [len(one) for one in true])


def answers(said: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, Measure]:
    """Return exact match and F1 of answers, each by the best of the right ones, in [0, 1].

    As SQuAD measures them (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1; for questions without an answer 2018,
    arXiv:1806.03822, section 5): by words, without case, English articles and ASCII punctuation.

    Args:
        said: The answer to each question, "" for none.
        right: Accepted answers to each; empty where there is none.

    Returns:
        ``exact_match`` and ``f1``; where some questions have an answer and some have none, also of each kind apart.
    """
    exact_R, f1_R = np.array(
        [_best(one, list(several) or [""]) for one, several in zip(said, right, strict=True)], dtype=float
    ).T
    measures = {"exact_match": mean(exact_R), "f1": mean(f1_R)}
    has_R = np.array([bool(several) for several in right], dtype=float)
    if 0 < has_R.sum() < len(has_R):
        measures |= {
            "has_answer_exact_match": ratio(exact_R * has_R, has_R),
            "has_answer_f1": ratio(f1_R * has_R, has_R),
            # Of no answer at all, F1 is exact match.
            "no_answer_accuracy": ratio(exact_R * (1 - has_R), 1 - has_R),
        }
    return measures


def normalised(text: str) -> str:
    """Return an answer without case, ASCII punctuation, English articles and needless space."""
    letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", letters).split())


def _best(said: str, right: Sequence[str]) -> tuple[float, float]:
    # An accepted answer of articles and punctuation alone has no word left to compare.
    accepted = [one for one in right if normalised(one)] or [""]
    return max(float(normalised(said) == normalised(one)) for one in accepted), max(_f1(said, one) for one in accepted)


def _f1(said: str, right: str) -> float:
    words, wanted = normalised(said).split(), normalised(right).split()
    if not words or not wanted:
        return float(words == wanted)
    return 2 * (Counter(words) & Counter(wanted)).total() / (len(words) + len(wanted))


def _share(above: int, below: int) -> float | None:
    return above / below if below else None
