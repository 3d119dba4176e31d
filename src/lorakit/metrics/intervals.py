"""How sure a number is: the percentile bootstrap over rows (Efron & Tibshirani 1993, chapter 13).

A measure is a function of how often each row is counted: once each for the value itself, as drawn with replacement for
the bootstrap. Most are functions of sums over rows (hits, n-gram matches, nats), so that a thousand resamples cost one
matrix product.

Shape suffixes besides those of types.py: N ways of counting the rows, R rows, S sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
"""Share of the resamples that an interval holds."""

_CELLS = 4_000_000
"""Weights held at once, about 32 MB."""

Array = np.ndarray[Any, Any]
Measure = Callable[[Array], Array]
"""From how often each row is counted, shape (N, R), to a score a way, shape (N,); NaN where it is undefined."""


@dataclass(frozen=True, slots=True)
class Score:
    """A number and its 95 % interval."""

    value: float | None
    """None where it is undefined, as a correlation with a constant."""
    low: float | None = None
    high: float | None = None
    """Ends of the interval; None where the value is undefined or there is one row alone."""

    def as_json(self) -> dict[str, float | None]:
        """Return a JSON object."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Sampled:
    """A number, and what it would have been on resampled rows."""

    value: float
    resamples_N: Array

    def __sub__(self, other: Sampled) -> Sampled:
        """Return the paired difference: of the same rows, drawn alike."""
        return Sampled(self.value - other.value, self.resamples_N - other.resamples_N)

    @property
    def score(self) -> Score:
        """The number with its percentile interval, taken over the resamples in which it is defined."""
        if not np.isfinite(self.value):
            return Score(None)
        defined = self.resamples_N[np.isfinite(self.resamples_N)]
        if not len(defined):
            return Score(self.value)
        low, high = np.quantile(defined, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return Score(self.value, float(low), float(high))


def sampled(measures: Mapping[str, Measure], rows: int, seed: int = 0) -> dict[str, Sampled]:
    """Take measures of all rows, and of 1,000 seeded resamples of them.

    Two systems measured on the same rows with the same seed are resampled alike, so that their difference is paired.

    Args:
        measures: By name.
        rows: How many rows there are, at least 1; of one alone nothing is resampled.
        seed: Draws the resamples.
    """
    values = {name: float(measure(np.ones((1, rows)))[0]) for name, measure in measures.items()}
    drawn: dict[str, list[Array]] = {name: [np.empty(0)] for name in measures}
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // rows)
    for start in range(0, RESAMPLES if rows > 1 else 0, step):
        weights_NR = _weights(generator, min(step, RESAMPLES - start), rows)
        for name, measure in measures.items():
            drawn[name].append(measure(weights_NR))
    return {name: Sampled(values[name], np.concatenate(drawn[name])) for name in measures}


def summed(sums_RS: Any, score: Callable[[Array], Array]) -> Measure:
    """Return the measure that is a function of sums over rows.

    Args:
        sums_RS: What each row adds, shape (R, S), dense or a SciPy sparse array.
        score: From sums (N, S) to scores (N,).
    """
    return lambda weights_NR: score(weights_NR @ sums_RS)


def ratio(above_R: Any, below_R: Any) -> Measure:
    """Return the measure sum(above) / sum(below), undefined where below is 0."""
    sums_RS = np.stack([np.asarray(above_R, dtype=float), np.asarray(below_R, dtype=float)], axis=1)
    return summed(sums_RS, lambda sums_NS: quotient(sums_NS[:, 0], sums_NS[:, 1]))


def mean(values_R: Any) -> Measure:
    """Return the measure that is the mean over rows."""
    return ratio(values_R, np.ones(len(values_R)))


def quotient(above: Array, below: Array, otherwise: float = np.nan) -> Array:
    """Divide element by element; `otherwise` where `below` is 0."""
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    return np.divide(above, below, out=np.full(shape, otherwise), where=np.asarray(below) != 0)


def _weights(generator: np.random.Generator, ways: int, rows: int) -> Array:
    """Draw rows with replacement, and return how often each is there, shape (N, R)."""
    drawn_NR = generator.integers(0, rows, (ways, rows)) + rows * np.arange(ways)[:, None]
    return np.bincount(drawn_NR.ravel(), minlength=ways * rows).reshape(ways, rows).astype(float)
