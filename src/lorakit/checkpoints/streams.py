"""One safetensors file: its header, checked, and a writer that holds one piece of a tensor at a time.

The safetensors library writes a file from tensors that are all in memory. The few lines here write one piece after
another, so that a model larger than the memory can be merged. Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

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

_LARGE = 1 << 24
"""A piece of more bytes is written before the next one is made, so that two are never held together."""


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
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the tensor in bytes, from its shape and dtype."""
        return self.elements * self.bytes_of_one

    @property
    def bytes_of_one(self) -> int:
        """Size of one number in bytes."""
        return _DTYPES[self.dtype][1]

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
    return infos_of(file, _header_text(file), file.stat().st_size)


def infos_of(file: Path, text: bytes, size: int) -> dict[str, TensorInfo]:
    """Return what the JSON of a header says of a file of `size` bytes; otherwise like `read_header`."""
    length = len(text)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        infos = {name: _info(entry, base=8 + length) for name, entry in sorted(entries.items())}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise damaged(file, f"its header cannot be read ({problem})") from problem
    position = 8 + length
    for name, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position or info.end - info.begin != info.bytes:
            raise damaged(file, f"its header gives tensor {name!r} a place that does not fit its shape")
        position = info.end
    if position != size:
        raise damaged(file, f"it has {size} bytes, and its header describes {position}")
    return infos


def read_metadata(file: Path) -> dict[str, str]:
    """Return the free strings of the header of a safetensors file; raises CheckpointError where it cannot be read."""
    try:
        return {str(key): str(value) for key, value in json.loads(_header_text(file)).get("__metadata__", {}).items()}
    except (ValueError, AttributeError) as problem:
        raise damaged(file, f"its header cannot be read ({problem})") from problem


def header_bytes(file: Path) -> bytes:
    """Return the header of a safetensors file as it stands there, its length in front."""
    text = _header_text(file)
    return len(text).to_bytes(8, "little") + text


def _header_text(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(512)
        _refuse_imposters(file, start)
        length = int.from_bytes(start[:8], "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise damaged(file, f"its header should have {length} bytes, the file has {size}")
        stream.seek(8)
        return stream.read(length)


def _info(entry: Mapping[str, Any], base: int) -> TensorInfo:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"odd shape {shape} or place {begin}, {end}")
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"dtype {entry['dtype']!r}; known are {', '.join(_DTYPES)}")
    return TensorInfo(entry["dtype"], shape, base + begin, base + end)


def _refuse_imposters(file: Path, start: bytes) -> None:
    if not start:
        raise damaged(file, "it is empty")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file} is a Git LFS pointer, not weights: run `git lfs pull` in its repository.")
    # The length of a sound header may begin with any byte, but a brace stands behind it.
    if start.lstrip().startswith(b"<") and start[8:9] != b"{":
        raise damaged(file, "it is a web page, not weights")


def damaged(file: Path, problem: str) -> CheckpointError:
    """Return the error for a file whose bytes are not what they should be."""
    return CheckpointError(f"{file} is damaged: {problem}. Download or copy it again.")


def dtype_name(dtype: Tensor | str) -> str:
    """Return a tensor's dtype, or one named as in torch, as safetensors writes it: ``F32`` for float32."""
    torch_name = dtype if isinstance(dtype, str) else str(dtype.dtype).removeprefix("torch.")
    return next(name for name, (known, _) in _DTYPES.items() if known == torch_name)


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, in the order safetensors stores them."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_stream(
    file: Path | None,
    infos: Mapping[str, TensorInfo],
    producer: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file tensor by tensor: the header first, then what `producer` returns for each name.

    Args:
        file: Written in place; call it inside `folders.whole_folder`. None: every tensor is produced, in the same
            order, and nothing is written.
        infos: Dtype and shape of each tensor; places are worked out here.
        producer: Called once a name; of large tensors one is held at a time.
        metadata: As for `write_pieces`.
    """

    if file is None:
        for name in _in_order(infos):
            producer(name)
        return

    def pieces(name: str) -> Iterator[memoryview]:
        tensor = producer(name)
        assert (dtype_name(tensor), tuple(tensor.shape)) == (infos[name].dtype, infos[name].shape), name
        yield raw_bytes(tensor)

    write_pieces(file, infos, pieces, metadata)


def write_pieces(
    file: Path,
    infos: Mapping[str, TensorInfo],
    pieces: Callable[[str], Iterable[memoryview]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file piece by piece: the header first, then the bytes that `pieces` gives for each name.

    Args:
        file: Written in place; call it inside `folders.whole_folder`.
        infos: Dtype and shape of each tensor; places are worked out here.
        pieces: Called once a name; together as many bytes as `infos` says. A piece may be written while the next one
            is made: they share no memory.
        metadata: Free strings of the header; `format: pt` is added, which transformers asks for.
    """
    names = _in_order(infos)
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    position = 0
    for name in names:
        info = infos[name]
        offsets = [position, position + info.bytes]
        header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": offsets}
        position += info.bytes
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream, ThreadPoolExecutor(max_workers=1) as writer:
        writing: Future[int] = writer.submit(stream.write, len(text).to_bytes(8, "little") + text)
        for name in names:
            count = 0
            for piece in pieces(name):
                writing.result()
                count += piece.nbytes
                writing = writer.submit(stream.write, piece)
                if piece.nbytes > _LARGE:
                    writing.result()
                # Else it would be held until the next one is there.
                del piece
            assert count == infos[name].bytes, name
        writing.result()


def _in_order(infos: Mapping[str, TensorInfo]) -> list[str]:
    """Return names with wide elements first: each tensor then starts at a multiple of its element size."""
    return sorted(infos, key=lambda name: (-_DTYPES[infos[name].dtype][1], name))
