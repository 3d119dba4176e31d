"""A model's weights in several files, each of a bounded size, as transformers and vLLM read them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from lorakit.checkpoints import streams, weights
from lorakit.checkpoints.weights import Place


def split(source: Path, folder: Path, most: int) -> None:
    """Put the weights of `source` into `folder`, in files of at most `most` bytes of tensors each.

    Files that are small enough already are moved as they are; otherwise tensors are copied, in the order of their
    names and one piece at a time. A tensor larger than `most` has a file of its own.

    Args:
        source: Model folder; its files may be gone afterwards.
        folder: Exists, on the same file system.
        most: At least 1.
    """
    places = weights.layout(source)
    files = weights.weight_files(source)
    if all(_size(streams.read_header(file)) <= most for file in files):
        for file in (*files, source / weights.INDEX):
            if file.exists():
                os.replace(file, folder / file.name)
        return
    shards = _shards(places, most)
    names = {f"model-{number:05}-of-{len(shards):05}.safetensors": held for number, held in enumerate(shards, start=1)}
    for name, held in names.items():
        infos = {tensor: place.info for tensor, place in held.items()}
        streams.write_pieces(folder / name, infos, partial(_pieces, held))
    index = {
        "metadata": {"total_size": _size({name: place.info for name, place in places.items()})},
        "weight_map": {tensor: name for name, held in names.items() for tensor in held},
    }
    (folder / weights.INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _shards(places: Mapping[str, Place], most: int) -> list[dict[str, Place]]:
    shards: list[dict[str, Place]] = []
    room = 0
    for name, place in places.items():
        room -= place.info.bytes
        if room < 0 or not shards:
            shards.append({})
            room = most - place.info.bytes
        shards[-1][name] = place
    return shards


def _pieces(places: Mapping[str, Place], name: str) -> Iterator[memoryview]:
    return places[name].pieces()


def _size(infos: Mapping[str, streams.TensorInfo]) -> int:
    return sum(info.bytes for info in infos.values())
