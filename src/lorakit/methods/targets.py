"""Which matrices a method reaches: the products of the backbone, by their names and blocks, and what learns whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from lorakit.checkpoints.ties import is_tied
from lorakit.errors import TrainingError, nearest
from lorakit.families import Family
from lorakit.methods.settings import DeltaSettings, LoraSettings
from lorakit.methods.trainable import head_modules, stacks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Chosen:
    """Matrix products that a method reaches."""

    layers: dict[str, Any]
    """By name."""
    ends: set[str]
    """Last words of those names."""
    stack: str = ""
    """Name of the list of blocks that they are limited to; empty where they may stand anywhere."""
    blocks: list[int] = field(default_factory=list)
    """Their numbers in it."""


def choose(model: PreTrainedModel, settings: LoraSettings | DeltaSettings, family: Family, whole: list[str]) -> Chosen:
    """Return the layers that `settings` names, or the family's own where it names none.

    Args:
        model: Without adapters.
        settings: Their targets and last blocks.
        family: Of the model.
        whole: Names of modules that learn as they are.

    Raises:
        TrainingError: A target matches no linear layer, or there are not so many last blocks.
    """
    layers = linear_layers(model, family, whole)
    stack, numbers = _last_blocks(model, family, settings.last_blocks)
    if stack:
        layers = {name: layer for name, layer in layers.items() if within(name, [f"{stack}.{at}" for at in numbers])}
    targets = _targets(settings.targets, family, layers)
    matched = {name: layer for name, layer in layers.items() if ends(name, targets)}
    return Chosen(matched, targets, stack, numbers)


def linear_layers(model: PreTrainedModel, family: Family, whole: list[str]) -> dict[str, Any]:
    """Return every matrix product of the backbone by name: Linear and GPT-2's Conv1D, heads and poolers left out.

    Args:
        model: Without adapters.
        family: Of the model.
        whole: Names of modules that learn as they are.
    """
    from transformers.pytorch_utils import Conv1D

    above = {inner for part in head_modules(model, family).values() for inner in part.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module not in above
        and not within(name, whole)
        and "pooler" not in name.split(".")
    }


def learned_whole(model: PreTrainedModel, family: Family, fresh: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of modules that learn and are saved as they are, and what is to be told about it.

    These are classifiers, and owners of weights that the checkpoint did not bring. A tied output layer is left out: a
    copy of it would be as large as the embeddings, and the bias beside it begins at zero.
    """
    output = model.get_output_embeddings()
    owners = set(head_modules(model, family)) if output is None else set()
    kept = []
    for name in fresh:
        owner = name.rpartition(".")[0]
        if is_tied(model) and output in model.get_submodule(owner).modules():
            kept.append(name)
        else:
            owners.add(owner)
    whole = sorted(name for name in owners if not within(name, owners - {name}))
    if not kept:
        return whole, ()
    return whole, (f"{', '.join(kept)} is new and stays as it is: saving it would copy the embeddings it belongs to",)


def within(name: str, modules: Collection[str]) -> bool:
    """Whether a module is one of `modules`, or a part of one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _last_blocks(model: PreTrainedModel, family: Family, count: int | None) -> tuple[str, list[int]]:
    """Return the name of the last list of blocks and the numbers of its last `count` ones; nothing where all count."""
    if count is None:
        return "", []
    if family.shares_blocks:
        raise TrainingError(
            f"method.last_blocks is {count}, but the blocks of {family.model_type} share their weights; leave it out."
        )
    stack = stacks(model, family)[-1]
    if count > len(stack):
        side = "decoder" if family.kind == "encoder_decoder" else "model"
        raise TrainingError(
            f"method.last_blocks is {count}; this {side} has {len(stack)} blocks, so 1 to {len(stack)}."
        )
    name = next(name for name, module in model.named_modules() if module is stack)
    return name, list(range(len(stack) - count, len(stack)))


def _targets(asked: list[str] | str | None, family: Family, layers: dict[str, Any]) -> set[str]:
    known = {name.rsplit(".", 1)[-1] for name in layers}
    if asked == "all-linear" or (asked is None and not family.targets):
        return known
    if asked is None:
        # A family lists the layers of all its members: plain and gated ones.
        return {target for target in family.targets if any(ends(name, {target}) for name in layers)}
    for target in sorted(asked):
        if not any(ends(name, {target}) for name in layers):
            raise TrainingError(
                f"method.targets: {target!r} matches no linear layer of this {family.model_type} model. "
                f"Its layers end in {', '.join(sorted(known))}. {nearest(target, known)}".rstrip()
            )
    return set(asked)


def ends(name: str, targets: set[str]) -> bool:
    """Whether the name of a layer is one of `targets`, or ends in one."""
    return any(name == target or name.endswith(f".{target}") for target in targets)
