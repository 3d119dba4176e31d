"""A `.lora` file: the files of one folder as a zip archive that stores them as they are, with their hashes inside.

The same files give the same bytes. Whoever opens such a file did not make it, so it is read as one that may lie: names
are plain names, nothing in it is compressed or a link, and it holds what its hashes say or is refused.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NoReturn
from zipfile import BadZipFile, ZipFile, ZipInfo

from lorakit.checkpoints import caches, differences
from lorakit.checkpoints.folders import check_file, whole_file, whole_folder
from lorakit.checkpoints.hashes import HASHES, Entry, listing, parsed
from lorakit.errors import CheckpointError

SUFFIX = ".lora"

_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip archive can say."""
_PLAIN_FILE = (stat.S_IFREG | 0o644) << 16
_UNIX = 3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_END, _LENGTH_OF_END = b"PK\x05\x06", 22
"""The last record of a zip archive: how it begins, and its bytes where no comment follows."""
_LONGEST_LISTING = 1 << 20
_BLOCK = 1 << 20
_MOST_UNPACKED = 8e9
"""Bytes that unpacked copies may take in the cache."""
BaseOf = Callable[[differences.Origin], Path]
"""Finds the folder of the base that a file holds the difference to."""

_DAMAGED = (BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, struct.error)
"""What Python's reader of zip archives raises for one that is cut short, edited, or written otherwise."""


def write_pack(destination: Path, folder: Path, names: Iterable[str], force: bool = False) -> None:
    """Write some files of `folder` into one file, read it back, and only then give it its name.

    Args:
        destination: Ends in ``.lora``.
        folder: Holds the files.
        names: Plain names, no subfolders.
        force: Replace a file that is there, if it is such a file too.

    Raises:
        CheckpointError: The name is taken, a file is named oddly, or the disk is full.
    """
    check_pack(destination, force)
    names = sorted(names)
    odd = [name for name in names if not _NAME.fullmatch(name)]
    if odd:
        raise CheckpointError(
            f"{folder} holds {odd[0]!r}, which cannot be packed: rename it, letters and digits alone."
        )
    with whole_file(destination, force) as aside:
        with ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_info(HASHES), listing(folder, names))
            for name in names:
                with (folder / name).open("rb") as source, archive.open(_sized(folder / name), "w") as written:
                    shutil.copyfileobj(source, written, _BLOCK)
        check_packed(aside)


def check_pack(destination: Path, force: bool = False) -> None:
    """Raise CheckpointError where `write_pack` should not write; called early."""
    if destination.suffix != SUFFIX:
        raise CheckpointError(f"{destination} should end in {SUFFIX}: -o {destination.name.rstrip('.')}{SUFFIX}")
    check_file(destination, force)
    if destination.exists():
        try:
            read_listing(destination)
        except CheckpointError:
            raise CheckpointError(
                f"{destination} was not written by lorakit, and --force keeps it; give another name."
            ) from None


def _info(name: str) -> ZipInfo:
    info = ZipInfo(name, _DATE)
    info.create_system, info.external_attr = _UNIX, _PLAIN_FILE
    return info


def _sized(file: Path) -> ZipInfo:
    info = _info(file.name)
    # Told beforehand, so that a file of more than 4 GB gets the fields it needs.
    info.file_size = file.stat().st_size
    return info


def read_listing(file: Path) -> dict[str, Entry]:
    """Return what a `.lora` file says it holds: name -> sha256 and size.

    Raises:
        CheckpointError: It is no such file, is damaged, or holds something no honest one does.
    """
    with _opened(file) as archive:
        return _listing(file, archive)[0]


def check_packed(file: Path) -> int:
    """Read a `.lora` file through and return how many files it holds; raises CheckpointError where one is damaged."""
    with _opened(file) as archive:
        listed, members = _listing(file, archive)
        for name, entry in listed.items():
            for _ in _blocks(file, archive, members[name], entry):
                pass
    return len(listed)


def unpack(file: Path, destination: Path, base_of: BaseOf, force: bool = False) -> None:
    """Write what a `.lora` file holds into a new folder; nothing is written beside it, and on an error nothing at all.

    Weights that are stored as a difference become whole.

    Args:
        file: Made by `write_pack`, or by anyone.
        destination: New folder.
        base_of: Called where the file holds a difference.
        force: Replace a folder that lorakit wrote.

    Raises:
        CheckpointError: The file is damaged or names what it must not, the base is another one, or the folder is taken.
    """
    with _opened(file) as archive:
        listed, members = _listing(file, archive)
        with whole_folder(destination, force) as aside:
            for name, entry in listed.items():
                with (aside / name).open("xb") as written:
                    for block in _blocks(file, archive, members[name], entry):
                        written.write(block)
            if differences.INDEX in listed:
                differences.restore(aside, base_of(differences.read(aside).base))


def unpacked(file: Path, base_of: BaseOf) -> Path:
    """Return a folder of the cache that holds what is in a `.lora` file, named after its hashes; unpacked once.

    Args:
        file: As for `unpack`.
        base_of: As for `unpack`; the copy in the cache needs no base.

    Raises:
        CheckpointError: The file is damaged, the base is another one, or the cache cannot be written.
    """
    key = sha256(repr(sorted(read_listing(file).items())).encode()).hexdigest()[:16]
    cache = caches.folder("unpacked")
    folder = cache / f"{file.stem}-{key}"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                caches.make_room(cache, _MOST_UNPACKED)
                unpack(file, folder, base_of)
            os.utime(folder)
    except OSError as problem:
        raise CheckpointError(
            f"{file} cannot be unpacked into {cache} ({problem.strerror}): set LORAKIT_CACHE to a folder that can be "
            f"written, or unpack it by hand: lorakit adapter unpack."
        ) from problem
    return folder


@contextmanager
def _opened(file: Path) -> Iterator[ZipFile]:
    if not file.is_file():
        raise CheckpointError(f"{file} is no file; give a {SUFFIX} file.")
    try:
        with ZipFile(file) as archive:
            yield archive
    except _DAMAGED as problem:
        raise CheckpointError(f"{file} is damaged or no {SUFFIX} file ({problem}). Copy it again.") from problem


def _listing(file: Path, archive: ZipFile) -> tuple[dict[str, Entry], Mapping[str, ZipInfo]]:
    """Return what the archive says of its files, and its entries, which are those files and no others."""
    _check_ends(file, archive)
    members = _members(file, archive)
    first = members.pop(HASHES, None)
    if first is None or first.file_size > _LONGEST_LISTING:
        _refuse(file, f"has no {HASHES} of a sound size")
    listed = parsed(archive.read(first), file)
    odd = sorted(listed.keys() ^ members.keys())
    if odd:
        _refuse(file, f"and its {HASHES} disagree on {odd[0]!r}")
    wrong = sorted(name for name, entry in listed.items() if entry.size != members[name].file_size)
    if wrong:
        _refuse(file, f"holds {wrong[0]!r} in another size than its {HASHES} says")
    return listed, members


def _check_ends(file: Path, archive: ZipFile) -> None:
    """Refuse bytes before and behind the archive, which readers of zip archives pass over and no hash stands for."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _LENGTH_OF_END))
        ends = stream.read().startswith(_END)
    if not ends or min((info.header_offset for info in archive.infolist()), default=0):
        _refuse(file, "holds something before or behind its files")


def _members(file: Path, archive: ZipFile) -> dict[str, ZipInfo]:
    """Return name -> entry, after a look at what zip archives are misused for."""
    found: dict[str, ZipInfo] = {}
    # Some file systems take names that differ in their case alone for one.
    seen: set[str] = set()
    for info in archive.infolist():
        # As it stands in the file: Python's own `filename` has been made harmless.
        name = info.orig_filename
        if not _NAME.fullmatch(name):
            _refuse(file, f"holds {name[:80]!r}, which is no plain name of a file")
        if name.lower() in seen:
            _refuse(file, f"holds {name!r} twice")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            _refuse(file, f"holds {name!r}, which is a link or a device")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            _refuse(file, f"holds {name!r} compressed or encrypted; files are stored as they are")
        found[name] = info
        seen.add(name.lower())
    if sum(info.file_size for info in found.values()) > file.stat().st_size:
        _refuse(file, "says it holds more than it is long")
    return found


def _blocks(file: Path, archive: ZipFile, info: ZipInfo, entry: Entry) -> Iterator[bytes]:
    """Yield the bytes of one file, and raise CheckpointError at their end where they are not what was packed."""
    digest = sha256()
    with archive.open(info) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            yield block
    if digest.hexdigest() != entry.sha256:
        raise CheckpointError(f"{info.filename} in {file} is damaged or was edited: its hash differs. Copy it again.")


def _refuse(file: Path, problem: str) -> NoReturn:
    raise CheckpointError(f"{file} {problem}. Nothing of it was used: ask whoever made it for another copy.")
