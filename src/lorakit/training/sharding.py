"""Weights cut into parts, one a process: what one device cannot hold, several do.

That is stage 3 of Rajbhandari et al. 2020 (arXiv:1910.02054, section 5): weights, gradients and moments. The cutting is
torch's `fully_shard`, as in Accelerate, but a weight that several modules share (T5's embeddings, the bias of BERT's
scores) has to lie in one group: Accelerate 1.15 puts it into two, which torch refuses. The plain twin is the whole
model on each process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lorakit.errors import TrainingError
from lorakit.families import Family
from lorakit.fast import logits
from lorakit.fast.pooling import unwrapped
from lorakit.methods.trainable import stacks


def shard(model: nn.Module, family: Family, device: torch.device, world: int, reshards: bool = True) -> None:
    """Keep one part in `world` of every weight on this process, and gather a group of them when it computes.

    A group is a block, the embeddings or the output layer; what shares a weight with another module, and all the rest,
    is one more group, which stays gathered from the forward to the backward pass.

    Args:
        model: Whole, on the processor, and the same on every process; changed in place.
        family: Of the model.
        device: Where it computes; weights move there group by group.
        world: Number of processes.
        reshards: Whether a group is cut again between the forward and the backward pass.

    Raises:
        TrainingError: The blocks of this model type cannot be told.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    logits.keep_together(model)
    mesh = init_device_mesh(device.type, (world,))
    for group in _groups(model, family):
        fully_shard(group, mesh=mesh, reshard_after_forward=reshards)
    fully_shard(model, mesh=mesh)


def check_can_be_cut(method: str, width: str | None, cut: str) -> None:
    """Raise TrainingError where the weights of a method, or of a base rounded to `width`, cannot be cut so."""
    if width is not None:
        raise TrainingError(
            f"method.quantize_base is {width}, and Accelerate's config asks for FSDP2 or DeepSpeed, which cannot cut "
            "rounded weights. Leave one of the two out: a rounded base is a quarter or an eighth of one in float32."
        )
    if method == "delta" and cut != "fsdp2":
        raise TrainingError(
            "method is delta, and Accelerate's config asks for DeepSpeed, which cannot cut a sum of two weights. Use "
            "FSDP2, or method full, which takes less memory, and draw a LoRA from it: lorakit adapter extract."
        )


def _groups(model: nn.Module, family: Family) -> list[nn.Module]:
    """Return the parts of a model that are gathered one at a time: those that share no weight with another part."""
    inner: Any = unwrapped(model)
    ends = [inner.get_input_embeddings(), inner.get_output_embeddings()]
    groups = [*(block for stack in stacks(inner, family) for block in stack), *(end for end in ends if end is not None)]
    owners: dict[int, int] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            owners[id(weight)] = owners.get(id(weight), 0) + 1
    return [group for group in groups if all(owners[id(weight)] == 1 for weight in group.parameters())]
