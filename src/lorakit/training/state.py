"""All that a run needs to go on exactly where it stopped: weights, moments, random state, progress.

Saved as safetensors and JSON in ``checkpoints/step-00000100/``, whole or not there; nothing is ever pickled.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lorakit.checkpoints import shards
from lorakit.checkpoints.folders import whole_folder
from lorakit.checkpoints.hashes import check_hashes
from lorakit.errors import CheckpointError, TrainingError

WEIGHTS, OPTIMIZER, RANDOM, PROGRESS = (
    "trained.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "state.json",
)
_NAME = re.compile(r"step-(\d{8})")
_KEPT = 2


@dataclass
class State:
    """Where a run stands; everything but tensors."""

    step: int = 0
    """Optimizer steps taken."""
    tokens: int = 0
    """Real tokens computed, prompts included."""
    first_loss: float | None = None
    """Evaluation loss before the first step, nats per label."""
    best_loss: float | None = None
    best_step: int = 0
    best_details: dict[str, float] = field(default_factory=dict)
    """What the best evaluation found besides its loss: the loss of each term, shares of hits."""
    stale: int = 0
    """Evaluations since the best one."""
    seconds: float = 0.0
    """Time spent in training, over all resumes."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One entry an evaluation: step, training loss since the last one, evaluation loss, its details."""
    loss_since: float = 0.0
    """Sum of the training losses of the steps since the last evaluation."""
    steps_since: int = 0


def folder_of(run_folder: Path, step: int) -> Path:
    """Return where the state after `step` is saved."""
    return run_folder / "checkpoints" / f"step-{step:08d}"


def save(
    run_folder: Path,
    state: State,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    random_states: list[Tensor],
    writes: bool = True,
) -> None:
    """Write the state of `state.step`; older states than the newest two and the best are removed afterwards.

    Args:
        run_folder: Folder of the run.
        state: Progress so far.
        model: Unwrapped; only weights that learn are written.
        optimizer: Its moments, by position of the weight.
        random_states: Generator states of each process, uint8, shape (K,) each.
        writes: Whether this process writes; the others hand over their parts of weights and moments.
    """
    weights = shards.trained(model)
    moments = {
        f"{index}.{name}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if hasattr(value, "shape")
    }
    if not writes:
        shards.write(None, weights)
        shards.write(None, moments)
        return
    with whole_folder(folder_of(run_folder, state.step), own=True) as aside:
        # safetensors' own writer reports a full disk as an error of its own kind, and needs all tensors at once.
        shards.write(aside / WEIGHTS, weights)
        shards.write(aside / OPTIMIZER, moments)
        shards.write(aside / RANDOM, {str(rank): value for rank, value in enumerate(random_states)})
        (aside / PROGRESS).write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
    for step, old in _folders(run_folder)[_KEPT:]:
        if step != state.best_step:
            shutil.rmtree(old, ignore_errors=True)


def newest(run_folder: Path) -> tuple[Path, list[str]]:
    """Return the newest saved state whose hashes hold, and a sentence for each damaged one that was passed over.

    Raises:
        TrainingError: There is none.
    """
    damaged: list[str] = []
    for _, folder in _folders(run_folder):
        try:
            if check_hashes(folder):
                return folder, damaged
            damaged.append(f"{folder.name} is not whole and was passed over")
        except CheckpointError as error:
            damaged.append(f"{folder.name} was passed over: {error}")
    seen = f" ({'; '.join(damaged)})" if damaged else ""
    raise TrainingError(f"{run_folder} holds no saved state to go on from{seen}. Start it anew with --force.")


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, device: torch.device) -> State:
    """Put a saved state back into `model`, `optimizer` and the random generators.

    Raises:
        TrainingError: A part is missing or does not fit this model, optimizer or number of processes.
    """
    restore_weights(folder, model)
    moments: dict[int, dict[str, Any]] = {}
    for key, value in load_file(folder / OPTIMIZER).items():
        index, _, name = key.partition(".")
        # The step count of a fused optimizer lives beside its weights.
        moments.setdefault(int(index), {})[name] = value.to(device)
    learned = [weight for group in optimizer.param_groups for weight in group["params"]]
    if moments and max(moments) >= len(learned):
        raise TrainingError(
            f"{folder.name} holds moments of {max(moments) + 1} weights; this run trains {len(learned)}."
        )
    for index, entries in moments.items():
        for name, value in entries.items():
            if value.shape == shards.shape(learned[index]):
                entries[name] = shards.cut_like(learned[index], value)
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": current["param_groups"]})
    random_states = load_file(folder / RANDOM)
    if str(rank) not in random_states:
        raise TrainingError(
            f"{folder.name} was written by {len(random_states)} processes; go on with as many, or its order of random "
            f"numbers would change."
        )
    set_random_state(random_states[str(rank)])
    return State(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))


def restore_weights(folder: Path, model: nn.Module) -> None:
    """Copy the weights of a saved state into `model`, name by name.

    Raises:
        CheckpointError: A file of the state is missing or damaged.
        TrainingError: Names or shapes differ from what `model` trains.
    """
    if not check_hashes(folder):
        raise TrainingError(f"{folder} is not whole or no longer there; start the run anew with --force.")
    saved = load_file(folder / WEIGHTS)
    learned = shards.trained(model)
    if saved.keys() != learned.keys():
        strange = sorted(saved.keys() ^ learned.keys())
        raise TrainingError(f"{folder.name} does not fit this model: {', '.join(strange[:3])} stand on one side only.")
    for name, weight in learned.items():
        if saved[name].shape != shards.shape(weight):
            raise TrainingError(f"{folder.name}: {name} is {tuple(saved[name].shape)}, not {shards.shape(weight)}.")
        shards.put(weight, saved[name])


def random_state() -> Tensor:
    """Return the state of torch's generators: the CPU's, then the accelerator's; uint8, shape (K,)."""
    parts = [torch.get_rng_state()]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_rng_state())
    return torch.cat([part.cpu() for part in parts])


def set_random_state(state: Tensor) -> None:
    """Put back what `random_state` returned."""
    size = torch.get_rng_state().numel()
    torch.set_rng_state(state[:size].clone())
    if torch.cuda.is_available() and state.numel() > size:
        torch.cuda.set_rng_state(state[size:].clone())


def _folders(run_folder: Path) -> list[tuple[int, Path]]:
    """Return saved states, newest first."""
    found = []
    for folder in (run_folder / "checkpoints").glob("step-*"):
        matched = _NAME.fullmatch(folder.name)
        if matched and folder.is_dir():
            found.append((int(matched[1]), folder))
    return sorted(found, reverse=True)
