"""The folder a run lives in: taken, locked, replaced only when the new one is whole.

A run is unfinished as long as its folder holds `checkpoints/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorakit.adapters.manifest import MANIFEST
from lorakit.errors import LorakitError

LOCK = "run.lock"
_STATES = "checkpoints"


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes, and where it ends up."""

    work: Path
    """Written to while training; the same as `final` unless a finished folder is being replaced."""
    final: Path

    def finish(self) -> None:
        """Put the whole run in its final place; the folder it replaces and the saved states go only now.

        Raises:
            LorakitError: The file system refuses, or another run holds the folder that would be replaced; the run lies
            whole in `work`, and can be resumed.
        """
        (self.work / LOCK).unlink(missing_ok=True)
        if self.work != self.final:
            _refuse_held(self.final)
        try:
            if self.work != self.final:
                retired = _beside(self.final, "replaced")
                shutil.rmtree(retired, ignore_errors=True)
                if self.final.exists():
                    os.rename(self.final, retired)
                os.rename(self.work, self.final)
                shutil.rmtree(retired, ignore_errors=True)
            # One rename ends the run; a death while the states are removed leaves no half of them behind it.
            leftover = self.final / f".{_STATES}"
            os.rename(self.final / _STATES, leftover)
        except OSError as error:
            raise LorakitError(
                f"{self.final} could not be put in place ({error}); the run lies in {self.work}."
            ) from error
        shutil.rmtree(leftover, ignore_errors=True)


def take(output: Path, resume: bool, force: bool) -> RunFolder:
    """Decide where a run writes; nothing is written yet.

    Args:
        output: As given with ``-o``.
        resume: Go on with an unfinished run of that name.
        force: Replace whatever lies there once the new run is whole.

    Raises:
        LorakitError: The folder is taken or cannot be written, or there is nothing to resume.
    """
    replacing = _beside(output, "replacing")
    if resume:
        for candidate in (replacing, output):
            if (candidate / _STATES).is_dir():
                return RunFolder(candidate, output)
        raise LorakitError(_nothing_to_resume(output))
    _refuse_unwritable(output)
    _refuse_held(output)
    there = {entry.name for entry in output.iterdir()} if output.is_dir() else set()
    if there <= {LOCK}:
        return RunFolder(output, output)
    if not force:
        go_on = " It holds an unfinished run: --resume goes on with it." if _STATES in there else ""
        raise LorakitError(
            f"{output} exists.{go_on} Give another -o, or --force to replace it once the new run is whole."
        )
    if not there & {MANIFEST, _STATES, LOCK}:
        raise LorakitError(f"{output} is not a run folder, so --force does not replace it. Give another -o.")
    return RunFolder(replacing, output)


@contextlib.contextmanager
def locked(folder: Path, fresh: bool) -> Iterator[None]:
    """Hold `folder` for this process; a second run of the same folder is refused, a dead one holds nothing.

    Args:
        folder: Made when missing.
        fresh: Empty it first, as what an earlier, interrupted replacement left would not belong to this run; and empty
            it afterwards when no state was saved, so that nothing stays which could neither be used nor resumed.

    Raises:
        LorakitError: Another process holds it, or it cannot be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _claim(folder / LOCK)
    except OSError as error:
        raise LorakitError(f"{folder} cannot be written ({error.strerror}). Give another -o.") from error
    try:
        if fresh:
            _empty(folder)
        yield
    finally:
        if fresh and not (folder / _STATES).is_dir() and not (folder / MANIFEST).exists():
            _empty(folder)
        (folder / LOCK).unlink(missing_ok=True)
        if made:
            # Refused where something stays; and after `finish` the folder may have moved.
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name != LOCK:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _claim(lock: Path) -> int:
    """Return the open lock; the system lets go of it when this process ends, however it ends."""
    while True:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LorakitError(
                f"{lock.parent} is in use by {_holder(lock)}; wait for it, or give another -o."
            ) from None
        # The one before may have removed the file between the two calls; then this lock would bind nobody.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                break
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
    return descriptor


def _refuse_held(folder: Path) -> None:
    """Raise LorakitError while another run is writing to `folder`."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LorakitError(
            f"{folder} is in use by {_holder(folder / LOCK)}; wait for it, or give another -o."
        ) from None
    finally:
        os.close(descriptor)


def _holder(lock: Path) -> str:
    try:
        held = json.loads(lock.read_text(encoding="utf-8"))
        return f"process {held['process']} on {held['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def _nothing_to_resume(output: Path) -> str:
    if (output / MANIFEST).exists():
        return (
            f"{output} is finished, so there is nothing to resume. Start a run with another -o, or go on from its "
            f"result: lorakit train --model {shlex.quote(str(output))}"
        )
    return f"{output} holds no unfinished run, so there is nothing to resume. Start it without --resume."


def _refuse_unwritable(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise LorakitError(f"{output} is a file; give -o a folder that does not exist yet.")
    nearest = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise LorakitError(f"{nearest} is a file, so {output} cannot be made; give another -o.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise LorakitError(f"{nearest} cannot be written; give -o a folder that can.")


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")
