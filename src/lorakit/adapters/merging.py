"""Fold an adapter into its base, from file to file and block by block: memory does not grow with the model."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters import whole
from lorakit.adapters.bundle import Target
from lorakit.adapters.edits import Edit, LowRank, edits_of
from lorakit.checkpoints import heads, inspection, streams, ties, weights
from lorakit.checkpoints.loading import in_backbone
from lorakit.checkpoints.new_tokens import vocabulary_tensors
from lorakit.checkpoints.streams import TensorInfo
from lorakit.checkpoints.weights import Place
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def fold(target: Target, folder: Path, dtype: str | None = None) -> None:
    """Write the base with its adapter folded in, as a transformers folder.

    Sums are taken in float32 and rounded once; a weight that stays as it is, is copied byte for byte. The shards of
    the base stay shards; a tied output layer is stored once, unless it was trained on its own.

    Args:
        target: An adapter (``lora``, ``changed``), or a ``full`` run, which is copied.
        folder: Exists; usually what `whole_folder` gave.
        dtype: ``float32``, ``bfloat16`` or ``float16`` for all weights; None keeps each as the base stores it.

    Raises:
        CheckpointError: There is nothing to fold, a tensor does not fit, or a weight that changes is not finite.
    """
    check_foldable(target)
    skeleton = target.base.skeleton(target.head)
    edits = edits_of(target, skeleton)
    places = base_places(target, skeleton, edits)
    if ties.must_untie(skeleton, edits):
        _untie(skeleton, places, edits)
    # A bias of a new head starts at zero, and stays there where its method does not train it.
    zeros = {name for name in _untold(skeleton, places, edits) if not in_backbone(skeleton, name)}
    added = _added(target, skeleton, (edits.keys() - places.keys()) | zeros)
    grown = _grown(target, skeleton, places, edits)
    shards: dict[str, dict[str, Place | None]] = {}
    for name, place in places.items():
        shards.setdefault(_shard_name(place.file), {})[name] = place
    last = shards[sorted(shards)[-1]]
    last.update(dict.fromkeys(added))
    with _one_thread_free():
        for shard, members in shards.items():
            stored = {name: added[name] if place is None else place.info for name, place in members.items()}
            infos = {name: _info(info, dtype, grown.get(name, info.shape)) for name, info in stored.items()}
            streams.write_pieces(folder / shard, infos, partial(_pieces, members, edits, infos))
    if weights.SINGLE not in shards:
        _write_index(folder, shards)
    tied = ties.is_tied(skeleton) and ties.head_name(skeleton) not in places
    whole.write_companions(folder, target.base, dtype or target.base.stored_dtype, skeleton, target.head, tied)


@contextmanager
def _one_thread_free() -> Iterator[None]:
    """Within this block torch leaves one of its threads to the writing of files, which goes on beside its sums."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _untie(skeleton: PreTrainedModel, places: dict[str, Place], edits: dict[str, Edit]) -> None:
    """Store the output layer on its own, and what transformers no longer ties then: its bias, more embeddings."""
    head = ties.head_name(skeleton)
    for copy, original in ties.copies(skeleton).items():
        if copy == head or ties.can_say_untied(skeleton):
            places[copy] = places[original]
            if original in edits:
                edits.setdefault(copy, edits[original])


def check_foldable(target: Target) -> None:
    """Raise CheckpointError for a model that has nothing beside it to fold in."""
    alone = target.folder == target.base.folder
    # How a built-in was made is in its manifest; to whoever uses it, it is a base.
    if target.form == "base" or (alone and target.base.identity.startswith("builtin:")):
        raise CheckpointError(
            f"{target.base.identity} is a base model: there is nothing to merge. Give an adapter, or a run's folder."
        )
    if target.form == "merged":
        raise CheckpointError(f"{target.folder} is already merged; use it as it is.")


def _added(target: Target, skeleton: PreTrainedModel, names: Set[str]) -> dict[str, TensorInfo]:
    """Return the shapes of weights of a new head, which the base does not store; kept as the base keeps its own."""
    shapes = {name: tuple(weight.shape) for name, weight in skeleton.named_parameters(remove_duplicate=False)}
    lost = sorted(names - shapes.keys())
    if lost:
        raise CheckpointError(f"{target.folder} changes {lost[0]!r}, which {target.base.called} does not store.")
    dtype = streams.dtype_name(target.base.stored_dtype)
    return {name: TensorInfo(dtype, shapes[name]) for name in sorted(names)}


def _grown(
    target: Target, skeleton: PreTrainedModel, places: Collection[str], edits: dict[str, Edit]
) -> dict[str, tuple[int, ...]]:
    """Give new tokens their entries before whatever training changed; return the shapes that differ from the base's."""
    new = target.base.new_tokens
    if new is None:
        return {}
    tensors = {name: tensor for name, tensor in vocabulary_tensors(skeleton).items() if name in places}
    for name in tensors:
        edits[name] = partial(_one_after_another, new.with_rows, edits.get(name))
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _one_after_another(first: Edit, then: Edit | None, base: Tensor) -> Tensor:
    return first(base) if then is None else then(first(base))


def base_places(target: Target, skeleton: PreTrainedModel, edits: Collection[str]) -> dict[str, Place]:
    """Return name in the model -> where the base stores it; constants of old files and second copies are left out.

    Old files lack the model's prefix (``h.0…`` for ``transformer.h.0…``), as transformers' loader knows too.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    expected = shapes.keys()
    if target.base.new_tokens is not None:
        grown = vocabulary_tensors(skeleton)
        shapes.update({name: target.base.new_tokens.stored_shape(shapes[name]) for name in grown})
    own = heads.claims(target.base.config, target.head, target.base.family)
    found = {}
    for stored, place in weights.layout(target.base.folder).items():
        name = next((name for name in model_names(stored, skeleton) if name in expected), stored)
        if name in expected and (own or place.info.shape == shapes[name]):
            found[name] = place
        elif own and target.base.family.kind != "encoder" and not inspection.is_buffer(stored):
            raise CheckpointError(f"{target.base.called} stores {stored!r}, which is no weight of the model.")
    tied = ties.copies(skeleton)
    for copy, original in tied.items():
        if copy in found and original in found and found[copy].holds_the_same(found[original]):
            del found[copy]
    lost = [name for name in _untold(skeleton, found, edits) if own or in_backbone(skeleton, name)]
    if lost:
        raise CheckpointError(f"{target.base.called} lacks {lost[0]!r} ({len(lost)} tensors in all).")
    return found


def model_names(stored: str, skeleton: PreTrainedModel) -> tuple[str, ...]:
    """Return what a tensor of a file may be called in the model.

    GPT-NeoX has renamed its output layer, and BERT the weights of its norms.
    """
    modern = stored.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return modern, f"{skeleton.base_model_prefix}.{modern}", stored.replace("embed_out.", "lm_head.")


def _untold(skeleton: PreTrainedModel, found: Collection[str], edits: Collection[str]) -> list[str]:
    """Return the weights that neither the base nor the adapter brings, copies of others left out."""
    # Constants that transformers computes by itself (Marian's positions).
    made = skeleton._keys_to_ignore_on_load_missing or ()
    told = {*found, *edits, *ties.copies(skeleton), *made}
    return sorted(name for name in skeleton.state_dict() if name not in told and not inspection.is_buffer(name))


def _shard_name(file: Path) -> str:
    return file.name.replace("pytorch_model", "model").replace(".bin", ".safetensors")


def _info(stored: TensorInfo, dtype: str | None, shape: tuple[int, ...]) -> TensorInfo:
    info = replace(stored, shape=shape)
    return replace(info, dtype=streams.dtype_name(dtype)) if dtype is not None and stored.floating else info


def _pieces(
    places: Mapping[str, Place | None], edits: Mapping[str, Edit], infos: Mapping[str, TensorInfo], name: str
) -> Iterator[memoryview]:
    """Yield the bytes of one weight after training."""
    import torch

    place, info, edit = places[name], infos[name], edits.get(name)
    if place is not None and edit is None and info.dtype == place.info.dtype:
        yield from place.pieces()
        return
    for tensor in _edited(place, info.shape, edit):
        rounded = tensor.to(getattr(torch, info.torch_dtype))
        if not weights.is_finite(rounded):
            raise CheckpointError(
                f"{name!r} is not finite in {info.torch_dtype} after the merge: the training diverged, or its numbers "
                f"are too large for that dtype. Try --dtype float32."
            )
        yield streams.raw_bytes(rounded)


def _edited(place: Place | None, shape: tuple[int, ...], edit: Edit | None) -> Iterator[Tensor]:
    """Yield one weight after training: in blocks of rows where they do not depend on each other, else as a whole."""
    import torch

    if place is not None and (edit is None or (isinstance(edit, LowRank) and edit.by_rows)):
        for rows in place.blocks():
            block = place.read(rows).float()
            yield block if edit is None else edit.of_rows(block, rows)
    else:
        base = torch.zeros(shape) if place is None else place.read().float()
        yield base if edit is None else edit(base)


def _write_index(folder: Path, shards: Mapping[str, Collection[str]]) -> None:
    places = {name: shard for shard, members in shards.items() for name in sorted(members)}
    total = sum(info.bytes for shard in shards for info in streams.read_header(folder / shard).values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=1)
    (folder / weights.INDEX).write_text(text + "\n", encoding="utf-8")
