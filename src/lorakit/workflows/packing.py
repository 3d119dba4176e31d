"""`lorakit adapter pack` and `unpack`: a folder that is shared, as one file and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorakit.adapters.contents import shared_names
from lorakit.adapters.forms import form_of
from lorakit.adapters.manifest import read_manifest
from lorakit.adapters.privacy import leaks
from lorakit.checkpoints import packed
from lorakit.checkpoints.hashes import HASHES, check_hashes
from lorakit.checkpoints.locating import locate
from lorakit.errors import LorakitError


@dataclass(frozen=True, slots=True)
class Packed:
    """A `.lora` file, and what is in it."""

    file: Path
    names: tuple[str, ...]
    size: int
    """Bytes of the file."""
    left: tuple[str, ...]
    """Names in the folder that stay behind."""


def pack(target: str, output: str | Path, force: bool = False, revision: str | None = None) -> Packed:
    """Write what is shared of a target into one file; the same target gives the same bytes.

    local.json, the course of the run, its states and rows stay behind.

    Args:
        target: Adapter, run or whole model: a folder, a built-in, or a Hub id.
        output: New file, ``NAME.lora``.
        force: Replace `output`, if lorakit wrote it.
        revision: Branch, tag or commit on the Hub.

    Raises:
        LorakitError: The target is damaged, a file of it holds a secret or a path, or the name is taken.
    """
    output = Path(output).expanduser()
    packed.check_pack(output, force)
    folder = locate(target, revision).folder
    check_hashes(folder)
    names = shared_names(folder, form_of(folder, read_manifest(folder)))
    told = list(leaks(folder, names))
    if told:
        raise LorakitError("\n".join([f"{folder} is not packed, as what is in it is for nobody else:", *told]))
    packed.write_pack(output, folder, names, force)
    left = sorted(entry.name for entry in folder.iterdir() if entry.name not in (*names, HASHES))
    return Packed(output, tuple(names), output.stat().st_size, tuple(left))


def unpack(file: str | Path, output: str | Path, force: bool = False) -> Packed:
    """Write what is in a `.lora` file into a new folder, each file checked against its hash.

    Args:
        file: Made by `pack`, or by anyone: it may lie.
        output: New folder.
        force: Replace `output`, if lorakit wrote all that it holds.

    Raises:
        CheckpointError: The file is damaged or names what it must not, or the folder is taken.
    """
    file, output = Path(file).expanduser(), Path(output).expanduser()
    names = packed.read_listing(file)
    packed.unpack(file, output, force)
    return Packed(file, tuple(names), file.stat().st_size, ())
