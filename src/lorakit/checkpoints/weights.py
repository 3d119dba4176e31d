"""Weights on disk: safetensors headers and streams, a fingerprint that sharding does not change.

The safetensors library writes a file from tensors that are all in memory. The few lines here write one tensor at a
time, so that a model larger than the memory can be merged. Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""Name in a safetensors header -> name in torch, bytes of one element."""

_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says about one tensor."""

    dtype: str  # as safetensors writes it
    shape: tuple[int, ...]
    begin: int = 0
    """First byte of the tensor, counted from the start of the file."""
    end: int = 0
    """The byte after its last one."""

    @property
    def bytes(self) -> int:
        """Size of the tensor in bytes, from its shape and dtype."""
        return math.prod(self.shape) * _DTYPES[self.dtype][1]

    @property
    def torch_dtype(self) -> str:
        """Name of the dtype in torch: ``float32`` for ``F32``."""
        return _DTYPES[self.dtype][0]

    @property
    def floating(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return "F" in self.dtype


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Read and check the header of a safetensors file; no tensor is read.

    Returns:
        Name -> what the header says, sorted by name.

    Raises:
        CheckpointError: The file is no safetensors file, is cut short, or its header contradicts itself.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(512)
        _refuse_imposters(file, start)
        length = int.from_bytes(start[:8], "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise _damaged(file, f"its header should have {length} bytes, the file has {size}")
        stream.seek(8)
        text = stream.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        infos = {name: _info(entry, base=8 + length) for name, entry in sorted(entries.items())}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _damaged(file, f"its header cannot be read ({problem})") from problem
    position = 8 + length
    for name, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position or info.end - info.begin != info.bytes:
            raise _damaged(file, f"its header gives tensor {name!r} a place that does not fit its shape")
        position = info.end
    if position != size:
        raise _damaged(file, f"it has {size} bytes, and its header describes {position}")
    return infos


def _info(entry: Mapping[str, Any], base: int) -> TensorInfo:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"odd shape {shape} or place {begin}, {end}")
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"dtype {entry['dtype']!r}; known are {', '.join(_DTYPES)}")
    return TensorInfo(entry["dtype"], shape, base + begin, base + end)


def _refuse_imposters(file: Path, start: bytes) -> None:
    if not start:
        raise _damaged(file, "it is empty")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file} is a Git LFS pointer, not weights: run `git lfs pull` in its repository.")
    if start.lstrip().startswith(b"<"):
        raise _damaged(file, "it is a web page, not weights")


def _damaged(file: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {problem}. Download or copy it again.")


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
        raise _damaged(file, f"it is no index of weights ({problem})") from problem
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

    def read(self) -> Tensor:
        """Read this tensor and nothing else, shape and dtype as stored."""
        import torch

        if self.from_bin is not None:
            return self.from_bin.clone()
        # Read, not mapped: a mapped page counts as memory used until the whole file is closed.
        buffer = bytearray(self.info.bytes)
        with self.file.open("rb") as stream:
            stream.seek(self.info.begin)
            stream.readinto(buffer)
        dtype = getattr(torch, self.info.torch_dtype)
        flat = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
        return flat.reshape(self.info.shape)


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
    for name, tensor in tensors(source):
        digest = hashlib.sha256(raw_bytes(tensor)).hexdigest()
        whole.update(json.dumps([name, dtype_name(tensor), list(tensor.shape), digest]).encode())
    return f"sha256:{whole.hexdigest()}"


def dtype_name(dtype: Tensor | str) -> str:
    """Return a tensor's dtype, or one named as in torch, as safetensors writes it: ``F32`` for float32."""
    torch_name = dtype if isinstance(dtype, str) else str(dtype.dtype).removeprefix("torch.")
    return next(name for name, (known, _) in _DTYPES.items() if known == torch_name)


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, in the order safetensors stores them."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_stream(
    file: Path,
    infos: Mapping[str, TensorInfo],
    producer: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file tensor by tensor: the header first, then what `producer` returns for each name.

    Args:
        file: Written in place; call it inside `folders.whole_folder`.
        infos: Dtype and shape of each tensor; places are worked out here.
        producer: Called once a name; only one tensor is held at a time.
        metadata: Free strings of the header; `format: pt` is added, which transformers asks for.
    """
    # Wide elements first: each tensor then starts at a multiple of its element size.
    names = sorted(infos, key=lambda name: (-_DTYPES[infos[name].dtype][1], name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    position = 0
    for name in names:
        info = infos[name]
        offsets = [position, position + info.bytes]
        header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": offsets}
        position += info.bytes
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            tensor = producer(name)
            assert (dtype_name(tensor), tuple(tensor.shape)) == (infos[name].dtype, infos[name].shape), name
            stream.write(raw_bytes(tensor))
