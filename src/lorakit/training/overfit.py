"""A verdict on overfitting: did the model learn the task, or remember the training rows?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lorakit.training.state import State


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the course of both losses says."""

    kind: Literal["none", "overfitting", "still_falling", "not_learning", "diverged"]
    sentence: str
    advice: str
    """What to change; empty where nothing needs to be."""


def judge(state: State) -> Verdict:
    """Compare training and evaluation loss over the run.

    Overfitting is an evaluation loss that rose by more than 2 % of its best while the training loss went on falling:
    the weights then fit the rows themselves.
    """
    first, best = state.first_loss or 0.0, state.best_loss or 0.0
    if state.history and state.best_step == 0 and (learned := state.history[-1]["train"]) < 0.8 * first:
        return Verdict(
            "overfitting",
            f"the evaluation loss never fell below its start, {first:.3f}, while training fell to {learned:.3f}: the "
            f"rows were remembered and nothing that they share. What is kept has learned nothing",
            "More rows, a lower optim.learning_rate or more evaluation rows (data.eval) would help.",
        )
    if not state.history or state.best_step == 0:
        return Verdict(
            "not_learning",
            f"the evaluation loss never fell below its start, {first:.3f}",
            "Try a higher optim.learning_rate, more epochs, or look at the rows with --dry-run.",
        )
    last = state.history[-1]
    if not math.isfinite(last["evaluation"]):
        return Verdict(
            "diverged",
            f"evaluation was best at step {state.best_step:,} ({best:.3f}) and is {last['evaluation']} at the end: "
            f"training ran away. Step {state.best_step:,} is kept",
            "A lower optim.learning_rate would help.",
        )
    at_best = next((entry for entry in state.history if entry["step"] == state.best_step), last)
    risen = last["evaluation"] > best * 1.02
    if risen and last["train"] < at_best["train"]:
        return Verdict(
            "overfitting",
            f"evaluation was best at step {state.best_step:,} ({best:.3f}) and rose to {last['evaluation']:.3f} while "
            f"training fell to {last['train']:.3f}: the rows are being remembered. Step {state.best_step:,} is kept",
            "More rows, fewer epochs, a smaller method.rank or some method.dropout would help.",
        )
    if state.best_step == last["step"] and len(state.history) > 1:
        earlier = state.history[-2]["evaluation"]
        if earlier - best > 0.02 * best:
            return Verdict(
                "still_falling",
                f"train {last['train']:.3f}, evaluation {best:.3f} and still falling at the end",
                "More epochs would help.",
            )
    return Verdict("none", f"none seen: train {last['train']:.3f}, evaluation {last['evaluation']:.3f}", "")
