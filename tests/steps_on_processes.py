"""Two steps of every objective on however many processes this was started with: ``torchrun ... FOLDER FILE``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from every_objective import CASES, Case, Workshop
from lorakit.training.evaluation import evaluate
from lorakit.training.loop import train_window


def two_steps(shop: Workshop, case: Case) -> dict[str, torch.Tensor]:
    """Return the weights after a step of seven rows and one of a single row, and what an evaluation then finds.

    Steps are cut into micro-batches, and of the second one some process has no row.
    """
    run, examples = shop.run(case)
    model, optimizer = run.accelerator.prepare(run.model, run.optimizer)
    run = replace(run, model=model, optimizer=optimizer, budget=2 * max(map(len, examples)))
    for epoch, rows in enumerate((examples[:7], examples[7:])):
        train_window(run, rows, epoch + 1, epoch)
    scores = evaluate(run, examples[:5])
    found = {name: torch.tensor(value) for name, value in {**scores.losses, **scores.shares}.items()}
    return {**found, **{name: weight.detach() for name, weight in run.bare_model.named_parameters()}}


def every_objective(folder: Path) -> dict[str, torch.Tensor]:
    """Return `two_steps` of all cases, the name of the case before each."""
    shop = Workshop(folder)
    return {
        f"{name}: {key}": value.contiguous()
        for name, case in CASES.items()
        for key, value in two_steps(shop, case).items()
    }


if __name__ == "__main__":
    from accelerate import PartialState
    from safetensors.torch import save_file

    from lorakit.workflows.launching import leave_group

    trained = every_objective(Path(sys.argv[1]))
    trained["processes"] = torch.tensor(PartialState().num_processes)
    if PartialState().is_main_process:
        save_file(trained, sys.argv[2])
    leave_group()
