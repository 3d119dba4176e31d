"""States of rows in memory-mapped files, for as long as a run lasts; the processes of one machine share them.

Which rows are whole stands in a small file of its own, mapped too, so that a process finds at once what another has
stored. A snapshot of it is written after the states have reached the disk: a power cut leaves no hole behind.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_WHOLE, _SNAPSHOT = "whole.bin", "whole.npy"


@dataclass(frozen=True, slots=True)
class Layout:
    """What one file holds: the states of all rows, one behind the other."""

    name: str
    """Of the file."""
    lengths: tuple[int, ...]
    """States of each row."""
    width: int
    """Features of a state."""
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Return the size of the file."""
        return sum(self.lengths) * self.width * self.dtype.itemsize


def lay_out(folder: Path, layouts: Sequence[Layout]) -> None:
    """Make the files, their room on the disk reserved; what an interrupted run left in them for the same rows stays.

    Raises:
        OSError: There is no room for them. To a file without room, a mapped write would end the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / layout.name for layout in layouts]
    whole = np.zeros(len(layouts[0].lengths), dtype=bool)
    known = all(
        file.exists() and file.stat().st_size == layout.bytes for file, layout in zip(files, layouts, strict=True)
    )
    if known and (folder / _SNAPSHOT).exists():
        earlier = np.load(folder / _SNAPSHOT, allow_pickle=False)
        whole = earlier if earlier.shape == whole.shape else whole
    for file, layout in zip(files, layouts, strict=True):
        with file.open("r+b" if known else "wb") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, layout.bytes)
            else:
                stream.truncate(layout.bytes)
    (folder / _WHOLE).write_bytes(whole.tobytes())


class States:
    """Files that `lay_out` made, opened by this process."""

    def __init__(self, folder: Path, layouts: Sequence[Layout]) -> None:
        self._folder, self._layouts = folder, tuple(layouts)
        self._ends = [np.cumsum(layout.lengths) for layout in layouts]
        self._maps = [_mapped(folder / layout.name) for layout in layouts]
        pairs = zip(self._maps, layouts, strict=True)
        self._states = [torch.frombuffer(mapped, dtype=each.dtype).view(-1, each.width) for mapped, each in pairs]
        self._whole = np.frombuffer(_mapped(folder / _WHOLE), dtype=bool)

    def whole(self, keys: Sequence[int]) -> bool:
        """Whether the states of all these rows are there."""
        return bool(self._whole[list(keys)].all())

    def of(self, file: int, key: int) -> Tensor:
        """Return the place of a row's states in a file, shape (T, D); what is written there is kept."""
        end = int(self._ends[file][key])
        return self._states[file][end - self._layouts[file].lengths[key] : end]

    def mark(self, key: int) -> None:
        """Say that a row's states are in every file."""
        self._whole[key] = True

    def release(self) -> None:
        """Let go of the memory that was read or written through; the files keep what it holds."""
        for mapped in self._maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def flush(self) -> None:
        """Write everything to the disk, and after it which rows are whole."""
        # Another process may go on meanwhile: what it marks from here on is not in the snapshot.
        whole = self._whole.copy()
        for layout in self._layouts:
            with (self._folder / layout.name).open("r+b") as stream:
                os.fsync(stream.fileno())
        aside = self._folder / f".{_SNAPSHOT}"
        with aside.open("wb") as stream:
            np.save(stream, whole)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, self._folder / _SNAPSHOT)


def _mapped(file: Path) -> mmap.mmap:
    with file.open("r+b") as stream:
        return mmap.mmap(stream.fileno(), 0)
