"""Fold an adapter into its base, tensor by tensor from file to file: memory for one tensor is enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters import changed, lora_file, whole
from lorakit.adapters.bundle import Target
from lorakit.adapters.lora_config import LoraFile
from lorakit.checkpoints import heads, inspection, streams, ties, weights
from lorakit.checkpoints.loading import in_backbone
from lorakit.checkpoints.new_tokens import vocabulary_tensors
from lorakit.checkpoints.streams import TensorInfo
from lorakit.checkpoints.weights import Place
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Edit = Callable[["Tensor"], "Tensor"]
"""Takes a weight of the base in float32, returns the weight after training in float32."""


def fold(target: Target, folder: Path, dtype: str | None = None) -> None:
    """Write the base with its adapter folded in, as a transformers folder.

    Sums are taken in float32 and rounded once. The shards of the base stay shards; a tied output layer is stored
    once, unless it was trained on its own.

    Args:
        target: An adapter (``lora``, ``changed``), or a ``full`` run, which is copied.
        folder: Exists; usually what `whole_folder` gave.
        dtype: ``float32``, ``bfloat16`` or ``float16`` for all weights; None keeps each as the base stores it.

    Raises:
        CheckpointError: There is nothing to fold, a tensor does not fit, or a result is not finite.
    """
    check_foldable(target)
    skeleton = target.base.skeleton(target.head)
    edits = _edits(target, skeleton)
    places = _places(target, skeleton, edits)
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
    for shard, members in shards.items():
        stored = {name: added[name] if place is None else place.info for name, place in members.items()}
        infos = {name: _info(info, dtype, grown.get(name, info.shape)) for name, info in stored.items()}
        streams.write_stream(folder / shard, infos, partial(_folded, members, edits, infos))
    if weights.SINGLE not in shards:
        _write_index(folder, shards)
    tied = ties.is_tied(skeleton) and ties.head_name(skeleton) not in places
    whole.write_companions(folder, target.base, dtype or target.base.stored_dtype, skeleton, target.head, tied)


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
        raise CheckpointError(f"{target.base.identity} is a base model: there is nothing to merge.")
    if target.form == "merged":
        raise CheckpointError(f"{target.folder} is already merged; use it as it is.")


def merged_weight(
    base_OI: Tensor, down_RI: Tensor, up_OR: Tensor, scale: float, magnitude_O: Tensor | None = None
) -> Tensor:
    """Fold a LoRA pair into the weight it adapts.

    Computes ``W + scale * B A`` (Hu et al. 2021, arXiv:2106.09685, equation 3); with a magnitude, each row of that
    sum is brought to its learned length (DoRA, Liu et al. 2024, arXiv:2402.09353, equation 5).

    Args:
        base_OI: Frozen weight W, shape (O, I), float32.
        down_RI: Trained A, shape (R, I).
        up_OR: Trained B, shape (O, R).
        scale: alpha / rank, or alpha / sqrt(rank).
        magnitude_O: Trained length of each row, shape (O,), above 0.

    Returns:
        New weight, shape (O, I), float32.

    Raises:
        CheckpointError: The shapes do not compose.
    """
    rank = down_RI.shape[0]
    rows, columns = base_OI.shape
    if down_RI.shape != (rank, columns) or up_OR.shape != (rows, rank):
        raise CheckpointError(
            f"A {tuple(down_RI.shape)} and B {tuple(up_OR.shape)} do not fit W {tuple(base_OI.shape)}: "
            f"W (O, I) needs A (R, I) and B (O, R). Was the adapter trained on another base?"
        )
    sum_OI = base_OI + scale * (up_OR.float() @ down_RI.float())
    if magnitude_O is None:
        return sum_OI
    return sum_OI * (magnitude_O.float() / sum_OI.norm(dim=1))[:, None]


def _edits(target: Target, skeleton: PreTrainedModel) -> dict[str, Edit]:
    """Return name of a weight -> how training changed it."""
    if target.form == "full":
        return {}
    if target.adapter is None:
        found = changed.read(target.folder, skeleton, target.trained)
        return {name: partial(_replaced, tensor) for name, tensor in found.items()}
    pairs: dict[str, dict[str, Tensor]] = {}
    whole_weights: dict[str, Edit] = {}
    for name, tensor in lora_file.read_lora_weights(target.folder).items():
        if lora_file.is_rows(name):
            weight = lora_file.adapted_weight(name)
            rows = target.adapter.rows(weight.removesuffix(".weight"))
            whole_weights[weight] = partial(_with_rows, tensor, rows)
            continue
        if not lora_file.is_pair(name):
            whole_weights[lora_file.adapted_weight(name)] = partial(_replaced, tensor)
            continue
        module, _, part = name.removeprefix(lora_file.PREFIX).rpartition(".lora_")
        pairs.setdefault(module, {})[part.removesuffix(".weight")] = tensor
    adapter = target.adapter
    low_rank = {f"{module}.weight": _lora_edit(module, pair, adapter, skeleton) for module, pair in pairs.items()}
    return {**whole_weights, **low_rank}


def _added(target: Target, skeleton: PreTrainedModel, names: Set[str]) -> dict[str, TensorInfo]:
    """Return the shapes of weights of a new head, which the base does not store; kept as the base keeps its own."""
    shapes = {name: tuple(weight.shape) for name, weight in skeleton.named_parameters(remove_duplicate=False)}
    lost = sorted(names - shapes.keys())
    if lost:
        raise CheckpointError(f"{target.folder} changes {lost[0]!r}, which {target.base.called} does not store.")
    dtype = streams.dtype_name(target.base.stored_dtype)
    return {name: TensorInfo(dtype, shapes[name]) for name in sorted(names)}


def _lora_edit(module: str, pair: Mapping[str, Tensor], adapter: LoraFile, skeleton: PreTrainedModel) -> Edit:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    needed = {"A", "B", "magnitude_vector"} if adapter.use_dora else {"A", "B"}
    if pair.keys() != needed:
        raise CheckpointError(f"the adapter should hold {sorted(needed)} for {module!r} and holds {sorted(pair)}.")
    layers = dict(skeleton.named_modules())
    if not isinstance(layers.get(module), nn.Linear | Conv1D):
        raise CheckpointError(f"the adapter does not fit its base: the base has no linear layer {module!r}.")
    scale = adapter.scale(module, rank=pair["A"].shape[0])
    fold_pair = partial(
        merged_weight, down_RI=pair["A"], up_OR=pair["B"], scale=scale, magnitude_O=pair.get("magnitude_vector")
    )
    # GPT-2's Conv1D stores (I, O).
    return partial(_transposed, fold_pair) if isinstance(layers[module], Conv1D) else fold_pair


def _transposed(edit: Edit, base_IO: Tensor) -> Tensor:
    return edit(base_IO.T).T


def _replaced(tensor: Tensor, base: Tensor) -> Tensor:
    return tensor.float()


def _with_rows(rows_ND: Tensor, ids: Sequence[int], base_VD: Tensor) -> Tensor:
    if rows_ND.shape != (len(ids), *base_VD.shape[1:]) or max(ids) >= len(base_VD):
        raise CheckpointError(
            f"the adapter does not fit its base: {len(ids)} rows of {tuple(base_VD.shape)} are {tuple(rows_ND.shape)}."
        )
    merged_VD = base_VD.clone()
    merged_VD[list(ids)] = rows_ND.float()
    return merged_VD


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


def _places(target: Target, skeleton: PreTrainedModel, edits: Collection[str]) -> dict[str, Place]:
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
        name = next((name for name in _names(stored, skeleton) if name in expected), stored)
        if name in expected and (own or place.info.shape == shapes[name]):
            found[name] = place
        elif own and target.base.family.kind != "encoder" and not inspection.is_buffer(stored):
            raise CheckpointError(f"{target.base.called} stores {stored!r}, which is no weight of the model.")
    tied = ties.copies(skeleton)
    for copy, original in tied.items():
        if copy in found and original in found and found[copy].read().equal(found[original].read()):
            del found[copy]
    lost = [name for name in _untold(skeleton, found, edits) if own or in_backbone(skeleton, name)]
    if lost:
        raise CheckpointError(f"{target.base.called} lacks {lost[0]!r} ({len(lost)} tensors in all).")
    return found


def _names(stored: str, skeleton: PreTrainedModel) -> tuple[str, ...]:
    """Return what a tensor of a file may be called in the model; GPT-NeoX has renamed its output layer."""
    return stored, f"{skeleton.base_model_prefix}.{stored}", stored.replace("embed_out.", "lm_head.")


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


def _folded(
    places: Mapping[str, Place | None], edits: Mapping[str, Edit], infos: Mapping[str, TensorInfo], name: str
) -> Tensor:
    import torch

    place, info = places[name], infos[name]
    tensor = torch.zeros(info.shape) if place is None else place.read()
    if not info.floating:
        return tensor
    if name in edits:
        tensor = edits[name](tensor.float())
    rounded = tensor.to(getattr(torch, info.torch_dtype))
    if not weights.is_finite(rounded):
        raise CheckpointError(
            f"{name!r} is not finite in {info.torch_dtype} after the merge: the training diverged, or its numbers are "
            f"too large for that dtype. Try --dtype float32."
        )
    return rounded


def _write_index(folder: Path, shards: Mapping[str, Collection[str]]) -> None:
    places = {name: shard for shard, members in shards.items() for name in sorted(members)}
    total = sum(info.bytes for shard in shards for info in streams.read_header(folder / shard).values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=1)
    (folder / weights.INDEX).write_text(text + "\n", encoding="utf-8")
