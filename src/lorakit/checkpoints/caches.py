"""Folders of a cache in the user's home: what can be made again, kept up to a bound, the least used removed first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path


def folder(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of one cache: ``$LORAKIT_CACHE/NAME``, else in the user's cache folder."""
    given = environment.get("LORAKIT_CACHE")
    if given:
        return Path(given) / name
    # The XDG base directory specification asks to pass over a relative path.
    shared = Path(environment.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path("~/.cache").expanduser()) / "lorakit" / name


def make_room(cache: Path, most: float) -> None:
    """Remove entries of a cache, the least lately used first, until at most `most` bytes are left.

    An entry that another process is reading stays readable to it until it ends.
    """
    entries = sorted(_entries(cache))
    total = sum(size for _, size, _ in entries)
    for _, size, entry in entries:
        if total <= most:
            return
        shutil.rmtree(entry, ignore_errors=True)
        total -= size


def _entries(cache: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each entry was last used, its size in bytes, and its folder; another process may be removing it."""
    for entry in cache.iterdir():
        with suppress(FileNotFoundError):
            yield entry.stat().st_mtime, sum(file.stat().st_size for file in entry.rglob("*")), entry
