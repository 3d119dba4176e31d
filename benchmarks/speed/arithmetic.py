"""From measurements to numbers that can be told: medians, and ratios taken round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.speed.harness import Measurement

Number = Callable[[Measurement], float]


@dataclass(frozen=True)
class Ratio:
    """One arm against another, over the rounds that both have."""

    median: float
    least: float
    most: float


def seconds(measurement: Measurement) -> float:
    """Return the time by the clock on the wall."""
    return measurement.outcome.seconds


def speed(measurement: Measurement) -> float:
    """Return work a second, by the clock on the wall."""
    return measurement.outcome.work / measurement.outcome.seconds


def processor_speed(measurement: Measurement) -> float:
    """Return work a second of one core: what other processes take does not count."""
    return measurement.outcome.work / max(measurement.outcome.processor_seconds, 1e-3)


def peak(measurement: Measurement) -> float:
    """Return the most memory that was held, in bytes."""
    return float(measurement.outcome.peak_bytes)


def middle(measurements: Sequence[Measurement], number: Number) -> float:
    """Return the median over the rounds."""
    return median(number(one) for one in measurements)


def ratio(measurements: Sequence[Measurement], first: Sequence[Measurement], number: Number) -> Ratio | None:
    """Divide each round by the same round of `first`; None where they share none.

    A machine that is slow for a while is slow for both, so the ratio within a round says more than that of medians.
    """
    base = {one.round: number(one) for one in first}
    found = [number(one) / base[one.round] for one in measurements if one.round in base]
    return Ratio(median(found), min(found), max(found)) if found else None
