"""Two steps of every objective on however many processes this was started with: ``torchrun ... FOLDER FILE [HOW]``.

HOW says that each process holds a part of what learns: ``fsdp2``, ``zero-2``, ``zero-3``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from every_objective import CASES, RATE, Case, Workshop
from lorakit.checkpoints import shards
from lorakit.checkpoints.finding import find
from lorakit.training import optim, sharding
from lorakit.training import state as states
from lorakit.training.evaluation import evaluate
from lorakit.training.loop import train_window
from lorakit.training.run import Run
from lorakit.training.zero import Zero


def prepared(run: Run, how: str, model_folder: Path) -> Run:
    """Spread a run over the processes: a whole model on each, or a part of its weights."""
    if not how:
        model, optimizer = run.accelerator.prepare(run.model, run.optimizer)
        return replace(run, model=model, optimizer=optimizer)
    if how.startswith("zero"):
        return in_zero(run, int(how[-1]))
    world = run.accelerator.num_processes
    sharding.shard(run.model, find(str(model_folder)).family, run.accelerator.device, world)
    for name, weight in run.model.named_parameters():
        assert isinstance(weight, DTensor), name
        assert weight.to_local().numel() < weight.numel() or weight.shape[0] < world, name
    return replace(run, optimizer=optim.build(run.model, run.optim, RATE), sharded=True)


def in_zero(run: Run, stage: int) -> Run:
    """Spread a run by DeepSpeed, which keeps no weight whole for being small."""
    settings = {"stage": stage, "stage3_param_persistence_threshold": 0}
    optimizer = optim.build(run.model, run.optim, RATE)
    zero = Zero(run.model, optimizer, settings, run.optim.clip, run.precision, run.accelerator.device)
    for name, weight in run.model.named_parameters():
        assert (weight.numel() == 0) == (stage == 3), name
    return replace(run, model=zero.engine, optimizer=zero, sharded=True)


def two_steps(shop: Workshop, case: Case, how: str) -> dict[str, torch.Tensor]:
    """Return the weights after a step of seven rows and one of a single row, and what an evaluation then finds.

    Steps are cut into micro-batches, and of the second one some process has no row. Weights of before are put back
    right behind an evaluation, as the best ones are, and must be there afterwards.
    """
    run, examples = shop.run(case)
    run = prepared(replace(run, budget=2 * max(map(len, examples))), how, shop.model(case))
    untrained = evaluate(run, examples[:5])
    optimizer = getattr(run.optimizer, "optimizer", run.optimizer)
    writes = run.accelerator.is_main_process
    if writes or how:
        states.save(run.folder, states.State(), run.bare_model, optimizer, [states.random_state()], writes)
    run.accelerator.wait_for_everyone()
    for epoch, rows in enumerate((examples[:7], examples[7:])):
        train_window(run, rows, epoch + 1, epoch)
    scores = evaluate(run, examples[:5])
    found = {name: torch.tensor(value) for name, value in {**scores.losses, **scores.shares}.items()}
    shards.settle(run.bare_model)
    trained = {name: shards.whole(weight).clone() for name, weight in run.bare_model.named_parameters()}
    assert evaluate(run, examples[:5]) == scores
    states.restore_weights(states.folder_of(run.folder, 0), run.bare_model)
    shards.settle(run.bare_model)
    assert evaluate(run, examples[:5]) == untrained
    return {**found, **trained}


def every_objective(folder: Path, how: str = "") -> dict[str, torch.Tensor]:
    """Return `two_steps` of all cases, the name of the case before each."""
    shop = Workshop(folder)
    return {
        f"{name}: {key}": value.contiguous()
        for name, case in CASES.items()
        for key, value in two_steps(shop, case, how).items()
    }


if __name__ == "__main__":
    from accelerate import PartialState
    from safetensors.torch import save_file

    from lorakit.__main__ import leave
    from lorakit.workflows.launching import leave_group

    trained = every_objective(Path(sys.argv[1]), *sys.argv[3:])
    trained["processes"] = torch.tensor(PartialState().num_processes)
    if PartialState().is_main_process:
        save_file(trained, sys.argv[2])
    leave_group()
    leave(0)
