"""Folders that are whole or not there: written aside, flushed, hashed, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

from lorakit.checkpoints.hashes import HASHES, UNHASHED, flush, read_hashes, sha256, write_hashes
from lorakit.errors import CheckpointError, Interrupted

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})

_EDITABLE = 2**20
"""Most bytes of a file that is looked at for edits before its folder is replaced; nobody types weights."""


@contextlib.contextmanager
def whole_folder(destination: Path, force: bool = False, own: bool = False) -> Iterator[Path]:
    """Give a folder to write into, which becomes `destination` when the block ends without an error.

    A reader sees nothing, or the folder with every file flushed and `hashes.json` telling what it holds. On an error
    or a signal nothing is left behind; what a `kill -9` left is swept by the next call.

    Args:
        destination: Must not exist, or be empty, unless `force`.
        force: Replace a folder that was written here before, once the new one is whole; see `check_destination`.
        own: The place belongs to a run, and no person keeps anything there: replace it even where it is damaged.

    Raises:
        CheckpointError: The destination is taken, the disk is full, or the file system refuses.
    """
    destination = _named(destination)
    if not own:
        check_destination(destination, force)
    with _plain_errors(destination), _folder_aside(destination) as aside:
        yield aside
        write_hashes(aside)
        _put_in_place(aside, destination, force or own)


@contextlib.contextmanager
def whole_file(destination: Path, force: bool = False) -> Iterator[Path]:
    """Give the name of a file to write, which becomes `destination` when the block ends without an error.

    Like `whole_folder`, for one file; see `check_file` for what is not replaced. It may appear while the block runs.

    Raises:
        CheckpointError: The name is taken, the disk is full, or the file system refuses.
    """
    destination = _named(destination)
    check_file(destination, force)
    with _plain_errors(destination), _signals_raise():
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination)
        aside = _beside(destination, "new")
        try:
            yield aside
            flush(aside)
            check_file(destination, force)
            os.replace(aside, destination)
            flush(destination.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(destination: Path) -> Iterator[Path]:
    """Give a folder beside a file that is to be written, for what it is made from; it is gone when the block ends."""
    # Under another name than the file's own, whose leftovers are swept when it is written.
    destination = _named(destination)
    with _plain_errors(destination), _folder_aside(destination.with_name(f"{destination.name}.parts")) as aside:
        yield aside


@contextlib.contextmanager
def _folder_aside(destination: Path) -> Iterator[Path]:
    """Give an empty folder beside `destination`, gone when the block ends unless it was renamed into place."""
    with _signals_raise():
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination)
        aside = _beside(destination, "new")
        try:
            aside.mkdir()
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def check_file(destination: Path, force: bool = False) -> None:
    """Raise CheckpointError where `whole_file` should not write; `force` accepts a file that is there."""
    destination = _named(destination)
    with _plain_errors(destination):
        if destination.is_symlink():
            raise CheckpointError(f"{destination} is a link to {os.readlink(destination)}; give the file itself.")
        if destination.exists() and not destination.is_file():
            raise CheckpointError(f"{destination} is no file, so it is not replaced; give another name.")
        if destination.exists() and not force:
            raise CheckpointError(f"{destination} exists; give another name, or --force to replace it.")
        _check_writable(destination)


def check_destination(destination: Path, force: bool = False, sources: Iterable[Path] = ()) -> None:
    """Raise CheckpointError where `whole_folder` should not write; called early, before hours of work.

    Args:
        destination: Folder to be made or replaced.
        force: Accept a folder that is not empty where `hashes.json` lists all that it holds, and nobody edited it.
        sources: Files and folders that are read; neither they nor a folder around them may be replaced.

    Raises:
        CheckpointError: Says what is in the way.
    """
    destination = _named(destination)
    with _plain_errors(destination):
        if destination.is_symlink():
            raise CheckpointError(f"{destination} is a link to {os.readlink(destination)}; give the folder itself.")
        if destination.exists() and not destination.is_dir():
            raise CheckpointError(f"{destination} is a file; give a folder that does not exist yet.")
        _check_writable(destination)
        if destination.is_dir():
            _check_place(destination, sources)
            if any(destination.iterdir()):
                _check_contents(destination, force)


def _named(destination: Path) -> Path:
    """Return `destination` absolute and with a name of its own, which ``..`` is not."""
    return destination.resolve() if destination.name in ("", "..") else destination.absolute()


def _check_writable(destination: Path) -> None:
    nearest = next(folder for folder in destination.parents if folder.exists())
    if not nearest.is_dir():
        raise CheckpointError(f"{nearest} is a file, so {destination} cannot be made; give another -o.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise CheckpointError(f"{nearest} cannot be written; give -o a folder that can.")


def _check_place(destination: Path, sources: Iterable[Path]) -> None:
    """Refuse a folder that something else stands on, whatever it holds."""
    if os.path.ismount(destination):
        raise CheckpointError(f"{destination} is a mount point and cannot be replaced; give a folder inside it.")
    kept = [(source, f"{source}, which is read") for source in sources]
    kept.append((Path(os.path.expanduser("~")), "your home folder"))
    # A folder that was removed under the shell stands nowhere.
    with contextlib.suppress(FileNotFoundError):
        kept.append((Path.cwd(), "the current folder"))
    place = destination.resolve()
    for path, name in kept:
        if place == path.resolve() or place in path.resolve().parents:
            relation = "is" if place == path.resolve() else "holds"
            raise CheckpointError(f"{destination} {relation} {name}, so it is not replaced; give another folder.")


def _check_contents(destination: Path, force: bool) -> None:
    """Refuse a folder that holds anything but what was written here before."""
    if not force:
        raise CheckpointError(f"{destination} exists and is not empty; give another folder, or --force to replace it.")
    written = read_hashes(destination)
    if not written:
        raise CheckpointError(
            f"{destination} was not written by lorakit (no {HASHES}), and --force keeps it; give another folder."
        )
    known = written.keys() | UNHASHED
    for entry in sorted(destination.rglob("*")):
        name = entry.relative_to(destination).as_posix()
        if name not in known and (entry.is_symlink() or not entry.is_dir()):
            raise CheckpointError(
                f"{destination} also holds {name}, which lorakit did not write, so --force keeps it; give another one."
            )
        told = written.get(name)
        if told and told.size <= _EDITABLE and entry.is_file() and sha256(entry) != told.sha256:
            raise CheckpointError(
                f"{destination} holds {name}, which was edited since lorakit wrote it, so --force keeps it; move the "
                f"folder away, or give another one."
            )


def write_files(folder: Path, writer: Callable[[Path], None]) -> None:
    """Put files into a folder that stays: all are written aside, flushed, then renamed into place.

    `hashes.json` is removed first and written last, over these files alone: while it is missing, the folder is being
    written. Other files of the folder are left as they are.

    Args:
        folder: Made when missing.
        writer: Gets a fresh folder and writes the files there; no subfolders.

    Raises:
        CheckpointError: The disk is full, or the file system refuses.
    """
    with _plain_errors(folder), _signals_raise():
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder / "files")
        aside = _beside(folder / "files", "new")
        try:
            aside.mkdir()
            writer(aside)
            write_hashes(aside)
            (folder / HASHES).unlink(missing_ok=True)
            names = sorted(file.name for file in aside.iterdir())
            for name in [*(name for name in names if name != HASHES), HASHES]:
                os.replace(aside / name, folder / name)
            flush(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _beside(destination: Path, kind: str) -> Path:
    return destination.with_name(f".{destination.name}.{kind}-{os.getpid()}")


def _put_in_place(aside: Path, destination: Path, replace: bool) -> None:
    retired = _beside(destination, "old")
    # Else the system itself refuses a folder that another command filled since it was looked at.
    if replace and destination.is_dir() and any(destination.iterdir()):
        os.rename(destination, retired)
    try:
        os.rename(aside, destination)
    except BaseException:
        if retired.exists():
            os.rename(retired, destination)
        raise
    flush(destination.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _sweep(destination: Path) -> None:
    """Remove what killed processes left; bring the old folder back where they died between the two renames."""
    for leftover in destination.parent.glob(f".{destination.name}.*-*"):
        kind, _, process = leftover.name.removeprefix(f".{destination.name}.").partition("-")
        if kind not in ("new", "old", "scratch") or not process.isdigit() or _alive(int(process)):
            continue
        if kind == "old" and not destination.exists():
            os.rename(leftover, destination)
        elif leftover.is_file():
            leftover.unlink(missing_ok=True)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


@contextlib.contextmanager
def _plain_errors(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in _FULL:
            raise CheckpointError(
                f"the disk is full: {destination} was not written. Make room and try again."
            ) from problem
        if problem.errno == errno.EXDEV:
            raise CheckpointError(
                f"{destination} is a mount point, so that it cannot be renamed into place; give a folder inside it."
            ) from problem
        if problem.errno in _TAKEN:
            raise CheckpointError(
                f"{destination} exists: another command wrote it meanwhile, and it is left as it is. Give another name."
            ) from problem
        # A name of what is written aside says nothing to whoever gave another.
        is_aside = f"{destination.parent / f'.{destination.name}.'}" in str(problem.filename)
        cause = problem.strerror if is_aside else problem
        raise CheckpointError(f"{destination} was not written: {cause}.") from problem


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, where nobody handles them; a plain death would leave files behind."""

    def leave(number: int, _: FrameType | None) -> None:
        raise Interrupted(number, f"stopped by {signal.Signals(number).name}; nothing was written.")

    waiting = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    if threading.current_thread() is not threading.main_thread():
        waiting = []
    waiting = [number for number in waiting if signal.getsignal(number) == signal.SIG_DFL]
    for number in waiting:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in waiting:
            signal.signal(number, signal.SIG_DFL)
