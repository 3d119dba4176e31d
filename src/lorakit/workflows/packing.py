"""`lorakit adapter pack` and `unpack`: a folder that is shared, as one file and back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lorakit.adapters.agreement import check_agreement
from lorakit.adapters.bundle import open_base
from lorakit.adapters.contents import look_through, shared_names, weight_files
from lorakit.adapters.forms import TargetForm, form_of
from lorakit.adapters.lora_config import read_lora_file
from lorakit.adapters.manifest import Manifest, read_manifest
from lorakit.adapters.privacy import leaks
from lorakit.checkpoints import differences, packed
from lorakit.checkpoints.folders import scratch_folder
from lorakit.checkpoints.hashes import HASHES, check_hashes
from lorakit.checkpoints.locating import base_of, locate
from lorakit.errors import LorakitError


@dataclass(frozen=True, slots=True)
class Packed:
    """A `.lora` file, and what is or was in it."""

    file: Path
    names: tuple[str, ...]
    size: int
    """Bytes of the file."""
    left: tuple[str, ...]
    """Names in the folder that stay behind."""
    whole: int
    """Bytes of the files in the folder."""


def pack(
    target: str,
    output: str | Path,
    force: bool = False,
    revision: str | None = None,
    *,
    difference: bool = False,
    base: str | None = None,
) -> Packed:
    """Write what is shared of a target into one file; the same target gives the same bytes.

    local.json, the course of the run, its states and rows stay behind.

    Args:
        target: Adapter, run or whole model: a folder, a built-in, or a Hub id.
        output: New file, ``NAME.lora``.
        force: Replace `output`, if lorakit wrote it.
        revision: Branch, tag or commit on the Hub.
        difference: Store weights of a whole model as their difference to the base, compressed; whoever uses the file
            needs the base, and gets the same bytes.
        base: Folder or Hub id of the base, where the target does not know it.

    Raises:
        LorakitError: The target is damaged or contradicts itself, a file of it holds a secret or a path, it has no
            difference to a base, or the name is taken.
    """
    output = Path(output).expanduser()
    packed.check_pack(output, force)
    folder = locate(target, revision, base).folder
    check_hashes(folder)
    manifest = read_manifest(folder)
    form = form_of(folder, manifest)
    check_agreement(folder, form, manifest, read_lora_file(folder) if form == "lora" else None)
    for fault in look_through(folder, form)[1]:
        raise LorakitError(f"{folder} is not packed: {fault}")
    names = shared_names(folder, form)
    told = list(leaks(folder, names))
    if told:
        raise LorakitError("\n".join([f"{folder} is not packed, as what is in it is for nobody else:", *told]))
    whole = sum((folder / name).stat().st_size for name in names)
    left = sorted(entry.name for entry in folder.iterdir() if entry.name not in (*names, HASHES))
    if difference:
        names = _pack_difference(output, folder, names, _base(target, folder, manifest, form, base), force)
    else:
        packed.write_pack(output, folder, names, force)
    return Packed(output, tuple(names), output.stat().st_size, tuple(left), whole)


def _base(
    target: str, folder: Path, manifest: Manifest | None, form: TargetForm, given: str | None
) -> tuple[differences.Origin, Path]:
    """Return the base that a whole model was trained from, and where it lies."""
    if manifest is None or form not in ("full", "merged"):
        raise LorakitError(
            f"{target} is no whole model that was trained from a known base (its form is {form}), so that there is no "
            f"difference to store: pack it without --difference."
        )
    found = open_base(folder, manifest, None, given)
    if found.fingerprint != manifest.base.fingerprint:
        raise LorakitError(
            f"{target} was trained from {manifest.base.identity} with weights {manifest.base.fingerprint[:19]}…, and "
            f"{found.called} has {found.fingerprint[:19]}…: give the right one with --base."
        )
    return differences.Origin(manifest.base.identity, manifest.base.revision, found.fingerprint), found.folder


def _pack_difference(
    output: Path, folder: Path, names: list[str], base: tuple[differences.Origin, Path], force: bool
) -> list[str]:
    """Write the pack of a whole model with its weights as a difference; return the names that are in it."""
    files = weight_files(folder, "full")
    origin, below = base
    with scratch_folder(output) as parts:
        for name in names:
            if name not in {file.name for file in files}:
                shutil.copyfile(folder / name, parts / name)
        differences.write(parts, files, origin, below)
        held = sorted(entry.name for entry in parts.iterdir())
        packed.write_pack(output, parts, held, force)
    return held


def unpack(file: str | Path, output: str | Path, force: bool = False, base: str | None = None) -> Packed:
    """Write what is in a `.lora` file into a new folder, each file checked against its hash.

    Args:
        file: Made by `pack`, or by anyone: it may lie.
        output: New folder.
        force: Replace `output`, if lorakit wrote all that it holds.
        base: Folder or Hub id of the base that it holds the difference to, where the file does not know it.

    Raises:
        CheckpointError: The file is damaged or names what it must not, the base is another one, or the folder is taken.
    """
    file, output = Path(file).expanduser(), Path(output).expanduser()
    packed.unpack(file, output, partial(base_of, base, file), force)
    # A difference to a base has become weights.
    sizes = {entry.name: entry.stat().st_size for entry in output.iterdir() if entry.name != HASHES}
    return Packed(file, tuple(sorted(sizes)), file.stat().st_size, (), sum(sizes.values()))
