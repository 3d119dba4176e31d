"""Examples in files that are mapped, not read: what was encoded once is neither encoded again nor held in memory.

A folder holds for each part of an example (ids, labels, …) the values of all examples end to end, as they lie in
memory, and how many each example has. `workflows/kept_rows.py` keeps such folders for later starts.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np

from lorakit.types import Example

_PARTS = ("ids", "labels", "target", "segments")
_DTYPES, _LENGTHS, _PLACES = "dtypes.json", "lengths.npy", "places.npy"


class TokenFiles(Sequence[Example]):
    """The examples of a folder that `write` made; each is a view of the mapped files, made when it is asked for.

    Args:
        folder: May be renamed or removed later: what is mapped stays.
    """

    def __init__(self, folder: Path) -> None:
        dtypes: dict[str, str] = json.loads((folder / _DTYPES).read_text(encoding="utf-8"))
        self._values = {name: _mapped(folder / f"{name}.bin", np.dtype(dtype)) for name, dtype in dtypes.items()}
        self._places_N2 = np.load(folder / _PLACES, mmap_mode="r", allow_pickle=False).reshape(-1, 2)
        lengths_NK = np.load(folder / _LENGTHS, mmap_mode="r", allow_pickle=False).reshape(len(self), len(dtypes))
        self._ends = {name: lengths_NK[:, number].cumsum() for number, name in enumerate(dtypes)}

    def __len__(self) -> int:
        """Examples."""
        return len(self._places_N2)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Return an example, or a list of some."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        parts = {name: self._values[name][self._slice(name, number)] for name in self._values}
        where = parts.pop("where").tobytes().decode()
        row, part = self._places_N2[number].tolist()
        return Example(row=row, where=where, part=part, **parts)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, read and written, shape (N,), int64."""
        computed = [np.diff(self._ends[name], prepend=0) for name in ("ids", "target") if name in self._ends]
        return np.sum(computed, axis=0)

    def _slice(self, name: str, number: int) -> slice:
        ends = self._ends[name]
        return slice(int(ends[number - 1]) if number else 0, int(ends[number]))


def lengths(examples: Sequence[Example]) -> list[int]:
    """Return how many tokens each example has, read and written."""
    if isinstance(examples, TokenFiles):
        numbers: list[int] = examples.lengths.tolist()
        return numbers
    return [len(example) for example in examples]


def write(folder: Path, examples: Iterable[Example]) -> TokenFiles:
    """Write examples into a folder that does not exist yet, one after the other, and return them as they lie there.

    Args:
        folder: Made here.
        examples: Alike in which parts they have, as those of one objective are.

    Raises:
        OSError: The disk is full, or the file system refuses.
    """
    folder.mkdir()
    dtypes: dict[str, str] = {}
    counts, places = array("q"), array("q")
    with ExitStack() as stack:
        streams: dict[str, BinaryIO] = {}
        for example in examples:
            parts = _parts(example)
            if not streams:
                dtypes = {name: values.dtype.str for name, values in parts.items()}
                streams = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in parts}
            assert {name: values.dtype.str for name, values in parts.items()} == dtypes, "examples of two kinds"
            for name, values in parts.items():
                streams[name].write(values.tobytes())
                counts.append(len(values))
            places.extend((example.row, example.part))
    (folder / _DTYPES).write_text(json.dumps(dtypes) + "\n", encoding="utf-8")
    np.save(folder / _LENGTHS, np.frombuffer(counts, dtype=np.int64) if counts else np.zeros(0, np.int64))
    np.save(folder / _PLACES, np.frombuffer(places, dtype=np.int64) if places else np.zeros(0, np.int64))
    return TokenFiles(folder)


def _parts(example: Example) -> dict[str, np.ndarray]:
    parts = {name: getattr(example, name) for name in _PARTS}
    parts["where"] = np.frombuffer(example.where.encode(), dtype=np.uint8)
    return {name: values for name, values in parts.items() if values is not None}


def _mapped(file: Path, dtype: np.dtype) -> np.ndarray:
    # An empty file cannot be mapped. A plain array is cut faster than the subclass that memmap returns.
    return np.asarray(np.memmap(file, dtype, "r")) if file.stat().st_size else np.zeros(0, dtype)
