"""Which files of a folder are shared: what its weights need, what says how to use them, and nothing else."""

from __future__ import annotations

from pathlib import Path

from lorakit.adapters import changed, lora_file
from lorakit.adapters.forms import TargetForm
from lorakit.adapters.lora_config import CONFIG
from lorakit.adapters.manifest import MANIFEST
from lorakit.adapters.whole import COMPANIONS
from lorakit.checkpoints import weights
from lorakit.errors import CheckpointError

_BESIDES = (*COMPANIONS, MANIFEST, "recipe.yaml", "README.md", "LICENSE", "NOTICE")


def weight_files(folder: Path, form: TargetForm) -> tuple[Path, ...]:
    """Return the files that hold the weights of a target; raises CheckpointError where they are missing."""
    if form == "lora":
        return (lora_file.weight_file(folder),)
    return (folder / changed.WEIGHTS,) if form == "changed" else weights.weight_files(folder)


def look_through(folder: Path, form: TargetForm) -> tuple[int, list[str]]:
    """Read the weights of a target, one tensor at a time; return how many there are and a line for each not finite."""
    count, faults = 0, []
    for file in weight_files(folder, form):
        for name, tensor in lora_file.tensors(file):
            count += 1
            if not weights.is_finite(tensor):
                faults.append(f"{file.name}: {name!r} holds numbers that are not finite. Use another copy.")
    return count, faults


def shared_names(folder: Path, form: TargetForm) -> list[str]:
    """Return the names of the files that are shared, sorted.

    What stays behind: local.json with its paths, the course of the run (it may quote rows), states of training, and
    whatever else lies in the folder.

    Raises:
        CheckpointError: The weights are missing, or are no safetensors files; or a file is a link to one elsewhere,
            which nobody may have meant to share.
    """
    found = {file.name for file in weight_files(folder, form)}
    if any(name.endswith(".bin") for name in found):
        raise CheckpointError(f"{folder} has only .bin weights, which are not shared: save it as safetensors first.")
    needed = {"lora": (CONFIG,), "changed": ()}.get(form, ("config.json", weights.INDEX))
    names = sorted(found | {name for name in (*needed, *_BESIDES) if (folder / name).is_file()})
    for name in names:
        _check_within(folder, folder / name)
    return names


def _check_within(folder: Path, file: Path) -> None:
    place = folder.resolve()
    # The Hub's cache keeps every file once, and links to it from the folder of each commit.
    kept = place.parent.parent / "blobs" if place.parent.name == "snapshots" else place
    if not {place, kept} & {*file.resolve().parents}:
        raise CheckpointError(
            f"{file} is a link out of its folder, to {file.readlink()}: what is shared are files of the folder. Copy "
            f"the file there, or remove the link."
        )
