"""A step in DeepSpeed's ZeRO, saved; a second one after it was loaded; and one whose gradient is not finite.

``torchrun ... FOLDER STAGE``: what is saved after the second step lies in FOLDER/of two.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from every_objective import CASES, RATE, Workshop
from lorakit.__main__ import leave
from lorakit.checkpoints import shards
from lorakit.errors import TrainingError
from lorakit.training import optim
from lorakit.training import state as states
from lorakit.training.loop import train_window
from lorakit.training.run import Run
from lorakit.training.settings import AdamWSettings
from lorakit.types import Example
from lorakit.workflows.launching import leave_group
from steps_on_processes import prepared

# With a large epsilon, the rounding of a gradient that is 0 makes no step; the bound on the norm is reached.
SETTINGS = AdamWSettings(epsilon=1e-3, clip=0.1)
CASE = CASES["labels-bert"]
"""It has three labels, and two processes cannot have equal parts of three biases."""


def fresh(shop: Workshop) -> tuple[Run, list[Example]]:
    """Return a run before its first step, in two micro-batches, and its rows."""
    run, examples = shop.run(CASE)
    run = replace(run, optim=SETTINGS, budget=2 * max(map(len, examples)))
    return replace(run, optimizer=optim.build(run.model, SETTINGS, RATE)), examples


def step_and_save(run: Run, examples: list[Example], folder: Path, step: int) -> None:
    """Take a step and save as the loop does, the norm of its gradient as well."""
    _, norm = train_window(run, examples, step)
    state = states.State(step, history=[{"norm": norm}])
    first = run.accelerator.is_main_process
    if first or run.sharded:
        states.save(folder, state, run.bare_model, run.optimizer, [states.random_state()], writes=first)
    run.accelerator.wait_for_everyone()


def two_steps(shop: Workshop, how: str, folder: Path) -> tuple[Run, list[Example]]:
    """Take them; the second one by a run that was loaded."""
    run, examples = fresh(shop)
    run = prepared(run, how, shop.model(CASE)) if how else run
    step_and_save(run, examples[:5], folder, 1)
    run, _ = fresh(shop)
    run = prepared(run, how, shop.model(CASE)) if how else run
    states.load(states.folder_of(folder, 1), run.bare_model, run.optimizer, 0, torch.device("cpu"))
    step_and_save(run, examples[5:], folder, 2)
    return run, examples


def assert_left_alone(run: Run, examples: list[Example]) -> None:
    """Let one process have a gradient that is not finite: all refuse the step."""
    before = {name: shards.whole(weight).clone() for name, weight in shards.trained(run.bare_model).items()}
    if run.accelerator.process_index == 1:
        next(iter(run.bare_model.parameters())).register_hook(lambda slope: slope * torch.nan)
    with pytest.raises(TrainingError, match=r"step 3: the gradient norm is (nan|inf) \(rows: "):
        train_window(run, examples[:5], 3)
    for name, weight in shards.trained(run.bare_model).items():
        assert torch.equal(shards.whole(weight), before[name]), name


if __name__ == "__main__":
    place = Path(sys.argv[1])
    assert_left_alone(*two_steps(Workshop(place), f"zero-{sys.argv[2]}", place / "of two"))
    leave_group()
    leave(0)
