"""hashes.json: what the files of a folder were when they were written, so that a damaged copy is refused by name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lorakit.errors import CheckpointError

HASHES = "hashes.json"
"""Written last: the size and sha256 of the other files of the folder."""

UNHASHED = frozenset({HASHES, "local.json", "README.md"})
"""Files that may change or be missing: this list itself, what is never shared, and what people edit."""

_NO_SUCH_CALL = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})


class Entry(NamedTuple):
    """What is listed of one file."""

    sha256: str
    size: int


def write_hashes(folder: Path) -> None:
    """Flush every file of `folder` and write `hashes.json` beside them."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in UNHASHED)
    text = listing(folder, (file.relative_to(folder).as_posix() for file in files))
    (folder / HASHES).write_text(text, encoding="utf-8")
    inner = [entry for entry in folder.rglob("*") if not entry.is_symlink()]
    for entry in (*inner, folder):
        flush(entry)


def listing(folder: Path, names: Iterable[str]) -> str:
    """Return what `hashes.json` says of some files of `folder`, sorted by name."""
    files = {name: folder / name for name in sorted(names)}
    listed = {name: {"sha256": sha256(file), "size": file.stat().st_size} for name, file in files.items()}
    return json.dumps({"format": 1, "files": listed}, indent=1) + "\n"


def read_hashes(folder: Path) -> dict[str, Entry]:
    """Return file name -> what is listed of it; empty for a folder without `hashes.json`.

    Raises:
        CheckpointError: `hashes.json` cannot be read.
    """
    file = folder / HASHES
    return parsed(file.read_bytes(), file) if file.exists() else {}


def parsed(text: bytes, source: Path) -> dict[str, Entry]:
    """Return file name -> what `hashes.json` lists of it; `source` is named where it cannot be read."""
    try:
        files = json.loads(text.decode("utf-8"))["files"].items()
        return {name: Entry(str(entry["sha256"]), int(entry["size"])) for name, entry in files}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise CheckpointError(f"{source} is damaged ({problem}); use another copy of it.") from problem


def check_hashes(folder: Path) -> bool:
    """Check every file that `hashes.json` lists.

    Returns:
        Whether there was a `hashes.json` to check against.

    Raises:
        CheckpointError: A listed file is missing or has changed; the message names it.
    """
    for fault in hash_faults(folder):
        raise CheckpointError(fault)
    return (folder / HASHES).exists()


def hash_faults(folder: Path, unread: Collection[str] = ()) -> Iterator[str]:
    """Yield a line for each file that `hashes.json` lists and that is missing or has changed.

    Args:
        folder: Holds them.
        unread: Names of large files, of which the size alone is compared.

    Raises:
        CheckpointError: `hashes.json` cannot be read.
    """
    for name, entry in read_hashes(folder).items():
        file = folder / name
        if not file.is_file():
            yield f"{file} is missing, and {HASHES} lists it; use another copy of this folder."
        elif file.stat().st_size != entry.size or (name not in unread and sha256(file) != entry.sha256):
            yield f"{file} is damaged or was edited: it differs from {HASHES}. Use another copy."


def sha256(file: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(entry: Path) -> None:
    """Wait until a file or folder is on the disk, where the file system can say so."""
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Some network and container file systems have no fsync; the rename still orders the writes there.
        if problem.errno not in _NO_SUCH_CALL:
            raise
    finally:
        os.close(descriptor)
