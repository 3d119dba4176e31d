"""The bootstrap: against the normal approximation, paired, and where nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lorakit.metrics.intervals import Score, mean, ratio, sampled


def test_the_interval_of_a_share_is_that_of_the_normal_approximation():
    rows, share = 400, 0.3
    hits = np.arange(rows) < share * rows
    score = sampled({"accuracy": mean(hits)}, rows)["accuracy"].score
    half = 1.959964 * math.sqrt(share * (1 - share) / rows)
    assert score.value == pytest.approx(share)
    assert score.low == pytest.approx(share - half, abs=0.1 * half)
    assert score.high == pytest.approx(share + half, abs=0.1 * half)


def test_the_same_seed_draws_the_same_interval_and_another_one_another():
    measure = {"mean": mean(np.random.default_rng(0).normal(size=50))}
    first, again, other = (sampled(measure, 50, seed)["mean"].score for seed in (0, 0, 1))
    assert first == again != other


def test_the_rows_of_many_chunks_are_drawn_as_in_one(monkeypatch):
    measure = {"mean": mean(np.random.default_rng(0).normal(size=50))}
    whole = sampled(measure, 50)["mean"]
    monkeypatch.setattr("lorakit.metrics.intervals._CELLS", 50 * 7)
    # A product over fewer rows may round its last digit otherwise; other draws would differ in the first.
    np.testing.assert_allclose(sampled(measure, 50)["mean"].resamples_N, whole.resamples_N, rtol=0, atol=1e-12)


def test_two_systems_are_compared_on_the_same_draws():
    draw = np.random.default_rng(0)
    hard_R = draw.normal(size=200)
    one = sampled({"loss": mean(hard_R)}, 200)["loss"]
    other = sampled({"loss": mean(hard_R + 0.1)}, 200)["loss"]
    difference = (other - one).score
    # Every row differs by 0.1, so any paired draw does, however much the rows differ from each other.
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_measure_over_nothing_is_undefined():
    assert sampled({"precision": ratio([0, 0], [0, 0])}, 2)["precision"].score == Score(None)


def test_one_row_has_a_value_and_no_interval():
    assert sampled({"mean": mean([2.0])}, 1)["mean"].score == Score(2.0, None, None)
