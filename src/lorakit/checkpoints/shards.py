"""Weights of which each process holds a part: gathered, put back, and written.

They are cut by torch's `fully_shard` (FSDP2), which makes them DTensors, or by DeepSpeed (ZeRO-3), which leaves them
empty and keeps the part beside them. A weight that is not cut stays as it is in all of this. Parts travel, so every
process has to call these functions, on the same weights and in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lorakit.checkpoints.streams import TensorInfo, dtype_name, write_stream

if TYPE_CHECKING:
    from torch import Tensor, nn


def shape(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of all of a tensor."""
    return tuple(cast(Any, tensor).ds_shape if _is_zero(tensor) else tensor.shape)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, without its gradient, gathered from the processes where each holds a part."""
    if _is_zero(tensor):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([tensor]):
            return tensor.detach().clone()
    return cast("Tensor", cast(Any, tensor).detach().full_tensor()) if _is_part(tensor) else tensor.detach()


def held(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor."""
    if _is_zero(tensor):
        from torch import distributed

        part, length = cast(Any, tensor).ds_tensor, cast(Any, tensor).ds_numel
        # The last parts are filled up to the length of the others, with anything.
        return cast("Tensor", part[: max(0, length - distributed.get_rank() * len(part))])
    return cast("Tensor", cast(Any, tensor).to_local()) if _is_part(tensor) else tensor


def put(weight: Tensor, tensor: Tensor) -> None:
    """Put a whole `tensor`, which every process has, into the place of `weight`, cut as that is."""
    import torch

    with torch.no_grad():
        if _is_zero(weight):
            from deepspeed.runtime.zero import GatheredParameters

            with GatheredParameters([weight], modifier_rank=0):
                weight.copy_(tensor)
        else:
            weight.copy_(cut_like(weight, tensor))


def cut_like(other: Tensor, tensor: Tensor) -> Tensor:
    """Return a whole `tensor`, which every process has, cut as the DTensor `other` of the same shape is."""
    if not _is_part(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    place = cast(Any, other)
    return distribute_tensor(tensor.to(other.device), place.device_mesh, place.placements, src_data_rank=None)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that learn, by name, as they lie between two steps."""
    settle(model)
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def settle(model: nn.Module) -> None:
    """Cut again what a forward pass left whole: the optimizer knows the parts, and the whole is thrown away."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def write(file: Path | None, tensors: Mapping[str, Tensor], widened: bool = False) -> None:
    """Write tensors to a safetensors file; one at a time is held whole.

    Args:
        file: None on a process that hands its parts over to the one that writes.
        tensors: By name.
        widened: Whether floating-point numbers are written in float32; else in their own dtype.
    """

    def written(tensor: Tensor) -> Tensor:
        gathered = whole(tensor)
        return gathered.float() if widened and gathered.is_floating_point() else gathered

    infos = {
        name: TensorInfo(
            "F32" if widened and tensor.is_floating_point() else dtype_name(tensor),
            shape(tensor),
        )
        for name, tensor in tensors.items()
    }
    write_stream(file, infos, lambda name: written(tensors[name]))


def _is_part(tensor: Tensor) -> bool:
    # A DTensor has it; importing that class takes long, and most runs have none.
    return hasattr(tensor, "full_tensor")


def _is_zero(tensor: Tensor) -> bool:
    return hasattr(tensor, "ds_tensor")
