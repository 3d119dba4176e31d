"""The verdict on a run, from the course of its two losses."""

import math

import pytest

from lorakit.training.overfit import judge
from lorakit.training.state import State


def verdict(first, *course):
    """Judge a run whose evaluations, ten steps apart, gave (training loss, evaluation loss)."""
    history = [
        {"step": 10 * number, "train": train, "evaluation": evaluation}
        for number, (train, evaluation) in enumerate(course, 1)
    ]
    finite = [(first, 0), *((entry["evaluation"], entry["step"]) for entry in history)]
    best = min((pair for pair in finite if math.isfinite(pair[0])), default=(None, 0))
    return judge(State(step=10 * len(course), first_loss=first, best_loss=best[0], best_step=best[1], history=history))


def test_a_loss_that_rises_while_training_falls_is_overfitting_and_says_which_step_is_kept():
    found = verdict(3.0, (2.0, 1.5), (1.0, 1.2), (0.4, 1.6))
    assert found.kind == "overfitting"
    assert found.sentence == (
        "evaluation was best at step 20 (1.200) and rose to 1.600 while training fell to 0.400: the rows are being "
        "remembered. Step 20 is kept"
    )
    assert "fewer epochs" in found.advice


def test_a_loss_that_rises_with_the_training_loss_is_no_overfitting():
    assert verdict(3.0, (1.0, 1.2), (1.4, 1.6)).kind == "none"


def test_a_rise_within_two_percent_is_none():
    assert verdict(3.0, (1.0, 1.2), (0.8, 1.21)).kind == "none"


def test_a_loss_that_still_falls_asks_for_more():
    found = verdict(3.0, (2.0, 2.0), (1.5, 1.5))
    assert found.kind == "still_falling"
    assert found.sentence == "train 1.500, evaluation 1.500 and still falling at the end"
    assert found.advice == "More epochs would help."


def test_a_loss_that_has_settled_is_none():
    found = verdict(3.0, (2.0, 1.50), (1.5, 1.49))
    assert (found.kind, found.sentence) == ("none", "none seen: train 1.500, evaluation 1.490")


def test_a_loss_that_never_fell_is_not_learning():
    found = verdict(3.0, (2.9, 3.1), (2.8, 3.2))
    assert found.kind == "not_learning"
    assert found.sentence == "the evaluation loss never fell below its start, 3.000"


def test_a_loss_that_only_rose_while_training_fell_is_overfitting_and_asks_for_no_higher_rate():
    found = verdict(0.7, (0.1, 2.0), (0.0, 5.0))
    assert found.kind == "overfitting"
    assert found.sentence.startswith(
        "the evaluation loss never fell below its start, 0.700, while training fell to 0.0"
    )
    assert "a lower optim.learning_rate" in found.advice


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_at_the_end_is_said(broken):
    found = verdict(3.0, (2.0, 1.5), (1.0, broken))
    assert found.kind == "diverged"
    assert "Step 10 is kept" in found.sentence
    assert "optim.learning_rate" in found.advice
