"""Weights as their difference to those of a base, compressed: restored bit for bit where the base is the same.

``model.safetensors.difference`` is one zlib stream of the header of model.safetensors and, in the order in which its
tensors lie, of each tensor's bits XOR those of the base's tensor in the same dtype. Training changes the low bits of
most numbers and the high bits of few, so first bytes of numbers are put beside first bytes, second beside second, and
so on (byte planes): planes of high bits are then mostly zeros. A run of one byte is all that deflate is asked to look
for: its longer searches take several times as long and find less.

Whoever opens such a file did not make it: what is restored has the size and hash that difference.json says, and a size
that a training of this base can have.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lorakit.checkpoints import streams, weights
from lorakit.checkpoints.hashes import Entry, parsed, sha256
from lorakit.checkpoints.streams import TensorInfo, raw_bytes
from lorakit.checkpoints.weights import Place
from lorakit.errors import CheckpointError

INDEX = "difference.json"
SUFFIX = ".difference"

_FORMAT = 1
_BLOCK = 1 << 20
"""Bytes of a stream that are read at once."""
_ELEMENTS = 1 << 18
"""Numbers of a tensor, in whole rows, whose planes lie together: part of the format."""
_MOST_TIMES, _MOST_BESIDES = 4, 64 << 20
"""What is restored takes at most so many times the bytes of the base, and so many more: a new head, new tokens."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The base that weights are a difference to."""

    identity: str
    """Hub id, ``builtin:NAME`` or ``local:FOLDERNAME``: never a path."""
    revision: str | None
    fingerprint: str
    """``sha256:…`` of its weights."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What difference.json says."""

    base: Origin
    files: dict[str, Entry]
    """Of each restored file by name."""


def write(folder: Path, files: tuple[Path, ...], origin: Origin, base: Path) -> None:
    """Write the difference of weight files to a base, and difference.json; each is read back and held to its file.

    A tensor at a time is in memory, a few rows of a large one.

    Args:
        folder: Exists; written into.
        files: safetensors files of one model.
        origin: What `base` is.
        base: Folder of the base.

    Raises:
        CheckpointError: A file is damaged.
    """
    places = _by_name(base)
    for file in files:
        with (folder / f"{file.name}{SUFFIX}").open("wb") as written:
            # Deflate looks for repeated bytes alone.
            engine = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
            for piece in _pieces(file, places):
                written.write(engine.compress(piece))
            written.write(engine.flush())
    listed = {file.name: {"sha256": sha256(file), "size": file.stat().st_size} for file in files}
    about = {"identity": origin.identity, "revision": origin.revision, "fingerprint": origin.fingerprint}
    text = json.dumps({"format": _FORMAT, "base": about, "files": listed}, indent=1)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")
    for name, entry in read(folder).files.items():
        for _ in _restored(folder / f"{name}{SUFFIX}", entry, places):
            pass


def read(folder: Path) -> Difference:
    """Read difference.json, which must name the files beside it.

    Raises:
        CheckpointError: It is damaged, or a newer lorakit wrote it.
    """
    file = folder / INDEX
    text = file.read_bytes()
    files = parsed(text, file)
    try:
        given = json.loads(text)
        version, base = given["format"], given["base"]
        origin = Origin(base["identity"], base["revision"], base["fingerprint"])
        sound = re.fullmatch(r"sha256:[0-9a-f]{64}", origin.fingerprint) and isinstance(origin.identity, str)
        if not (sound and isinstance(origin.revision, str | None)):
            raise ValueError("no base")
    except (ValueError, KeyError, TypeError) as problem:
        raise streams.damaged(file, f"it does not say what it is the difference to ({problem})") from problem
    if version != _FORMAT:
        raise CheckpointError(f"{file} has format {version}, and this lorakit reads {_FORMAT}: pip install -U lorakit.")
    there = {entry.name for entry in folder.iterdir()}
    expected = {f"{name}{SUFFIX}" for name in files}
    odd = sorted(expected ^ {name for name in there if name.endswith(SUFFIX)}) + sorted(files.keys() & there)
    odd += sorted(name for name in files if not name.endswith(".safetensors"))
    if odd:
        raise streams.damaged(file, f"it and the files beside it disagree on {odd[0]!r}")
    return Difference(origin, files)


def restore(folder: Path, base: Path) -> None:
    """Put the weights themselves in the place of their differences.

    Args:
        folder: Holds difference.json and what it names, which are gone afterwards.
        base: Folder of the base.

    Raises:
        CheckpointError: The base is another one, or a file is damaged or lies; `folder` is of no use then.
    """
    difference = read(folder)
    found = weights.fingerprint(base)
    if found != difference.base.fingerprint:
        raise CheckpointError(
            f"this is a difference to {difference.base.identity} with weights {difference.base.fingerprint[:19]}…, and "
            f"{base} has {found[:19]}…: give the right one with --base."
        )
    places = _by_name(base)
    for name, entry in difference.files.items():
        packed = folder / f"{name}{SUFFIX}"
        with (folder / name).open("xb") as written:
            for piece in _restored(packed, entry, places):
                written.write(piece)
        packed.unlink()
    (folder / INDEX).unlink()


def _pieces(file: Path, places: Mapping[str, Place]) -> Iterator[bytes]:
    """Yield what is compressed of a file of weights."""
    yield streams.header_bytes(file)
    for name, info in _in_order(streams.read_header(file)):
        place, base = Place(file, info), _counterpart(name, info, places)
        for rows in _blocks(info):
            yield _planes(_xor(raw_bytes(place.read(rows)), _bits(base, info, rows)), info.bytes_of_one)


def _restored(packed: Path, entry: Entry, places: Mapping[str, Place]) -> Iterator[bytes]:
    """Yield the bytes of a file of weights, and raise CheckpointError at the latest behind them where it lies."""
    most = _MOST_TIMES * sum(place.info.bytes for place in set(places.values())) + _MOST_BESIDES
    if entry.size > most:
        raise streams.damaged(packed, f"it says it holds {entry.size:,} bytes, more than a training of this base gives")
    digest = hashlib.sha256()
    try:
        with packed.open("rb") as stream:
            for piece in _inflated(_Inflating(stream), packed, entry.size, places):
                digest.update(piece)
                yield piece
    except (zlib.error, EOFError) as problem:
        raise streams.damaged(packed, f"it cannot be restored ({problem})") from problem
    if digest.hexdigest() != entry.sha256:
        raise streams.damaged(packed, "what it restores is not what was packed")


def _inflated(stream: _Inflating, packed: Path, size: int, places: Mapping[str, Place]) -> Iterator[bytes]:
    length = stream.take(8)
    text = stream.take(min(int.from_bytes(length, "little"), size))
    infos = streams.infos_of(packed, text, size)
    yield length + text
    for name, info in _in_order(infos):
        base = _counterpart(name, info, places)
        row = info.bytes // max(info.shape[0], 1) if info.shape else info.bytes
        for rows in _blocks(info):
            planes = stream.take((rows.stop - rows.start) * row)
            yield _xor(_numbers(planes, info.bytes_of_one), _bits(base, info, rows))
    stream.end()


def _in_order(infos: Mapping[str, TensorInfo]) -> list[tuple[str, TensorInfo]]:
    return sorted(infos.items(), key=lambda item: (item[1].begin, item[0]))


def _blocks(info: TensorInfo) -> Iterator[slice]:
    """Yield the rows of a tensor in blocks; a number alone is one row."""
    count = info.shape[0] if info.shape else 1
    size = max(1, _ELEMENTS * count // max(info.elements, 1))
    for first in range(0, count if info.elements else 0, size):
        yield slice(first, min(first + size, count))


def _by_name(base: Path) -> dict[str, Place]:
    """Return the tensors of the base, also without the first word of their names: files may lack the model's prefix."""
    places = weights.layout(base)
    return {name.partition(".")[2]: place for name, place in places.items()} | places


def _counterpart(name: str, info: TensorInfo, places: Mapping[str, Place]) -> Place | None:
    """Return the tensor of the base that another began as: of its name, or of one with another first word."""
    place = places.get(name) or places.get(name.partition(".")[2])
    if place is None or place.info.floating != info.floating:
        return None
    alike = len(place.info.shape) == len(info.shape) and place.info.shape[1:] == info.shape[1:]
    return place if alike else None


def _bits(base: Place | None, info: TensorInfo, rows: slice) -> bytes:
    """Return the bytes of some rows of the base in the dtype of `info`; zeros where it has none."""
    import torch

    row = info.bytes // max(info.shape[0], 1) if info.shape else info.bytes
    count = (rows.stop - rows.start) * row
    # New tokens have rows that the base lacks.
    held = b"" if base is None else bytes(raw_bytes(base.read(rows).to(getattr(torch, info.torch_dtype))))
    return held.ljust(count, b"\0")


def _xor(one: bytes | memoryview, other: bytes) -> bytes:
    import numpy as np

    return bytes(np.bitwise_xor(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)))


def _planes(numbers: bytes, width: int) -> bytes:
    """Return numbers of `width` bytes as their first bytes, then their second ones, and so on."""
    import numpy as np

    return np.frombuffer(numbers, np.uint8).reshape(-1, width).T.tobytes()


def _numbers(planes: bytes, width: int) -> bytes:
    """Undo `_planes`."""
    import numpy as np

    return np.frombuffer(planes, np.uint8).reshape(width, -1).T.tobytes()


class _Inflating:
    """A zlib stream, of which never more is unpacked than is asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._engine = zlib.decompressobj()

    def take(self, count: int) -> bytes:
        """Return the next bytes; raises EOFError where there are fewer."""
        parts: list[bytes] = []
        while count:
            given = self._engine.unconsumed_tail or self._stream.read(_BLOCK)
            part = self._engine.decompress(given, count)
            if not given and not part:
                raise EOFError("it ends too early")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def end(self) -> None:
        """Raise EOFError where something is left."""
        rest = self._engine.unconsumed_tail or self._stream.read(_BLOCK)
        if self._engine.decompress(rest, 1) or not self._engine.eof or self._engine.unused_data or self._stream.read(1):
            raise EOFError("it goes on behind its end")
