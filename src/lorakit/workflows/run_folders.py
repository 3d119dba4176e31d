"""The folder a run lives in: taken, locked, replaced only when the new one is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorakit.adapters.manifest import MANIFEST
from lorakit.errors import LorakitError

LOCK = "run.lock"


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes, and where it ends up."""

    work: Path
    """Written to while training; the same as `final` unless a finished folder is being replaced."""
    final: Path

    def finish(self) -> None:
        """Put the whole run in its final place; the folder it replaces goes only now."""
        if self.work == self.final:
            return
        retired = _beside(self.final, "replaced")
        os.rename(self.final, retired)
        os.rename(self.work, self.final)
        shutil.rmtree(retired, ignore_errors=True)


def take(output: Path, resume: bool, force: bool) -> RunFolder:
    """Decide where a run writes, and clear the way.

    Args:
        output: As given with ``-o``.
        resume: Go on with an unfinished run of that name.
        force: Replace whatever lies there once the new run is whole.

    Raises:
        LorakitError: The folder is taken, or there is nothing to resume.
    """
    replacing = _beside(output, "replacing")
    if resume:
        for candidate in (replacing, output):
            if (candidate / "checkpoints").is_dir() and not (candidate / MANIFEST).exists():
                return RunFolder(candidate, output)
        what = "is finished" if (output / MANIFEST).exists() else "holds no unfinished run"
        raise LorakitError(
            f"{output} {what}, so there is nothing to resume. Start a run with another -o, or go on from its result: "
            f"lorakit train --model {output}"
        )
    if output.exists() and not output.is_dir():
        raise LorakitError(f"{output} is a file; give -o a folder that does not exist yet.")
    if not output.is_dir() or not any(output.iterdir()):
        return RunFolder(output, output)
    if not force:
        unfinished = (output / "checkpoints").is_dir() and not (output / MANIFEST).exists()
        go_on = " It holds an unfinished run: --resume goes on with it." if unfinished else ""
        raise LorakitError(
            f"{output} exists.{go_on} Give another -o, or --force to replace it once the new run is whole."
        )
    if not (output / MANIFEST).exists() and not (output / "checkpoints").exists():
        raise LorakitError(f"{output} is not a run folder, so --force does not replace it. Give another -o.")
    return RunFolder(replacing, output)


@contextlib.contextmanager
def locked(folder: Path, fresh: bool) -> Iterator[None]:
    """Hold `folder` for this process; a second run of the same folder is refused, a dead one's lock is taken over.

    Args:
        folder: Made when missing.
        fresh: Empty it first; what an earlier, interrupted replacement left would not belong to this run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    _refuse_living(lock)
    if fresh:
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    lock.unlink(missing_ok=True)
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        raise LorakitError(f"{folder} has just been taken by another run.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"process": os.getpid(), "host": socket.gethostname()}, file)
    try:
        yield
    finally:
        # After `finish` the folder has moved, and the lock with it.
        lock.unlink(missing_ok=True)


def _refuse_living(lock: Path) -> None:
    try:
        held = json.loads(lock.read_text(encoding="utf-8"))
        process, host = int(held["process"]), held["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if host != socket.gethostname():
        raise LorakitError(f"{lock.parent} is in use on {host}. If that run is dead, remove {lock}.")
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return
    except PermissionError:
        pass
    if process != os.getpid():
        raise LorakitError(f"{lock.parent} is in use by process {process}; wait for it, or give another -o.")


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")
