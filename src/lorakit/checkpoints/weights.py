"""The weights of a model folder, whatever its files: found, read one tensor at a time, and fingerprinted."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.checkpoints.streams import TensorInfo, damaged, dtype_name, raw_bytes, read_header
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_ALL = slice(None)
_BLOCK = 1 << 20
"""Bytes that are read at once."""

_ROWS = 32
"""Blocks are multiples of so many rows."""


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that hold the weights of a model folder: safetensors, or ``.bin`` where there is nothing else.

    Raises:
        CheckpointError: There are none, a shard is missing, or a single file and an index stand side by side.
    """
    for single, index in ((SINGLE, INDEX), ("pytorch_model.bin", "pytorch_model.bin.index.json")):
        has_single, has_index = (folder / single).exists(), (folder / index).exists()
        if has_single and has_index:
            raise CheckpointError(f"{folder} holds both {single} and {index}: remove the one that is out of date.")
        if has_single:
            return (folder / single,)
        if has_index:
            return tuple(folder / name for name in sorted(set(read_index(folder / index).values())))
    raise CheckpointError(f"{folder} holds no weights: expected {SINGLE}, or {INDEX} and its shards.")


def read_index(file: Path) -> dict[str, str]:
    """Return tensor name -> file name of a sharded checkpoint.

    Raises:
        CheckpointError: The index cannot be read, names a file outside its folder, or a shard is missing.
    """
    try:
        places = dict(json.loads(file.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as problem:
        raise damaged(file, f"it is no index of weights ({problem})") from problem
    for name in sorted(set(places.values())):
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{file} names a shard outside its folder: {name!r}.")
        if not (file.parent / name).is_file():
            raise CheckpointError(f"{file.parent} is not complete: {file.name} names {name}, which is missing.")
    return places


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor is stored."""

    file: Path
    info: TensorInfo
    from_bin: Tensor | None = None
    """The tensor itself, still on disk, of a ``.bin`` file; None for safetensors."""

    def read(self, rows: slice = _ALL) -> Tensor:
        """Read this tensor, or neighbouring rows of it, and nothing else; dtype as stored."""
        import torch

        count, *columns = self.info.shape or (1,)
        first, last, _ = rows.indices(count)
        shape = (last - first, *columns) if self.info.shape else ()
        if self.from_bin is not None:
            return self.from_bin.reshape(count, *columns)[first:last].reshape(shape).clone()
        row = self.info.bytes // max(count, 1)
        # Read, not mapped: a mapped page counts as memory used until the whole file is closed.
        tensor = torch.empty(shape, dtype=getattr(torch, self.info.torch_dtype))
        with self.file.open("rb") as stream:
            stream.seek(self.info.begin + first * row)
            if stream.readinto(raw_bytes(tensor)) != tensor.nbytes:
                raise damaged(self.file, "it has become shorter")
        return tensor

    def blocks(self) -> Iterator[slice]:
        """Yield the rows in blocks that the processor's cache can hold."""
        count = self.info.shape[0] if self.info.shape else 1
        size = _BLOCK * max(count, 1) // max(self.info.bytes, 1)
        # Products of other numbers of rows are summed in another order: the last bits would differ from a whole one's.
        size = max(_ROWS, size - size % _ROWS)
        for first in range(0, count, size):
            yield slice(first, min(first + size, count))

    def pieces(self) -> Iterator[memoryview]:
        """Yield the bytes as stored, each piece in memory of its own."""
        if self.from_bin is not None:
            yield raw_bytes(self.from_bin)
            return
        with self.file.open("rb") as stream:
            stream.seek(self.info.begin)
            for left in range(self.info.bytes, 0, -_BLOCK):
                piece = stream.read(min(_BLOCK, left))
                if len(piece) < min(_BLOCK, left):
                    raise damaged(self.file, "it has become shorter")
                yield memoryview(piece)

    def holds_the_same(self, other: Place) -> bool:
        """Whether two tensors are equal; memory for a block of each is enough."""
        shapes = self.info.shape == other.info.shape
        return shapes and all(self.read(rows).equal(other.read(rows)) for rows in self.blocks())


def layout(source: Path) -> dict[str, Place]:
    """Return tensor name -> where it is stored, sorted by name, for a model folder or one safetensors file.

    Raises:
        CheckpointError: A file is missing or damaged, or the index and the shards disagree.
    """
    files = weight_files(source) if source.is_dir() else (source,)
    found = [item for file in files for item in _places(file)]
    places = dict(sorted(found, key=lambda item: item[0]))
    if len(places) < len(found):
        raise CheckpointError(f"{source}: some tensors stand in two shards; the shards are of different saves.")
    index = source / INDEX
    if index.exists():
        wrong = sorted(read_index(index).items() ^ {name: place.file.name for name, place in places.items()}.items())
        if wrong:
            raise CheckpointError(f"{index} and its shards disagree on {wrong[0][0]!r}: not of one save.")
    return places


def _places(file: Path) -> list[tuple[str, Place]]:
    if file.suffix != ".bin":
        return [(name, Place(file, info)) for name, info in read_header(file).items()]
    return [
        (name, Place(file, TensorInfo(dtype_name(tensor), tuple(tensor.shape)), tensor))
        for name, tensor in _read_bin(file).items()
    ]


def tensors(source: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor, one at a time and sorted by name, of a model folder or of one safetensors file.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    for name, place in layout(source).items():
        yield name, place.read()


def only_bin(folder: Path) -> bool:
    """Whether the weights of a model folder are stored in ``.bin`` files alone."""
    return weight_files(folder)[0].suffix == ".bin"


def _read_bin(file: Path) -> dict[str, Tensor]:
    """Read a ``.bin`` file of tensors, and nothing but tensors: no object of it is ever built."""
    from pickle import UnpicklingError

    import torch

    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
    except (UnpicklingError, RuntimeError, ValueError, TypeError, EOFError, KeyError) as problem:
        raise CheckpointError(
            f"{file} cannot be read as plain tensors, and nothing else is read from a .bin file. "
            f"Use a checkpoint with {SINGLE}."
        ) from problem


def fingerprint(source: Path) -> str:
    """Return ``sha256:…`` of the weights of a model folder, or of one safetensors file.

    Hashed are name, dtype, shape and bytes of every tensor, sorted by name: sharding and metadata change nothing.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    whole = hashlib.sha256()
    for name, place in layout(source).items():
        digest = hashlib.sha256()
        for piece in place.pieces():
            digest.update(piece)
        whole.update(json.dumps([name, place.info.dtype, list(place.info.shape), digest.hexdigest()]).encode())
    return f"sha256:{whole.hexdigest()}"


def is_finite(tensor: Tensor) -> bool:
    """Whether every number is finite; takes no memory, where `isfinite` would copy the tensor."""
    import torch

    # The smallest and the largest are NaN as soon as one number is.
    return tensor.numel() == 0 or all(math.isfinite(edge.item()) for edge in torch.aminmax(tensor))
