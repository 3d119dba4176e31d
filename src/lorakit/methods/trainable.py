"""What every method reports, and the two ways a method may go wrong: nothing trains, or a tie hides what does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from torch import nn

from lorakit.checkpoints.added import base_name
from lorakit.errors import TrainingError
from lorakit.families import Family
from lorakit.types import Head, Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEXT_TOKEN = Head("causal_lm")
"""The head of a method's caller that names none."""


def summarise(model: PreTrainedModel, notes: tuple[str, ...] = ()) -> Trainable:
    """Count what learns, by kind of layer, in the order of the model.

    Raises:
        TrainingError: No weight would learn.
    """
    trained = {base_name(name): weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trained:
        raise TrainingError("no weight would learn: everything is frozen. Freeze fewer blocks or patterns.")
    tensors: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for name, weight in trained.items():
        kind = _kind(name)
        tensors[kind] += 1
        weights[kind] += weight.numel()
    return Trainable(
        names=tuple(trained),
        trained=sum(weights.values()),
        total=sum(weight.numel() for weight in model.parameters()),
        summary=tuple((kind, tensors[kind], weights[kind]) for kind in tensors),
        notes=notes,
    )


def _kind(name: str) -> str:
    """Return the name without what numbers and wraps it: ``h.attn.c_attn`` for all blocks together."""
    name = re.sub(r"^base_model\.model\.", "", name)
    name = re.sub(r"\.(lora_[A-Za-z_]+|modules_to_save|default|base_layer)\b", "", name)
    name = re.sub(r"\.\d+\.", ".", name)
    return re.sub(r"\.(weight|bias)$", "", name)


def stacks(model: PreTrainedModel, family: Family) -> list[nn.ModuleList]:
    """Return the lists of the model's blocks, the encoder's first; under some heads a T5 has no decoder.

    Raises:
        TrainingError: The type is outside the table and its blocks cannot be told.
    """
    backbone = model.base_model
    if family.blocks:
        found = [path for path in family.blocks if hasattr(backbone, path.partition(".")[0])]
        return [cast(nn.ModuleList, backbone.get_submodule(path)) for path in found]
    parts = [backbone]
    if family.kind == "encoder_decoder":
        parts = [getattr(backbone, side) for side in ("encoder", "decoder") if hasattr(backbone, side)]
    lists = [[module for module in part.modules() if isinstance(module, nn.ModuleList)] for part in parts]
    if not lists or not all(lists):
        raise TrainingError(
            f"the blocks of a {family.model_type!r} model cannot be told; name what learns by method.patterns (freeze) "
            f"or method.targets (lora)."
        )
    return [max(candidates, key=len) for candidates in lists]


def blocks(model: PreTrainedModel, family: Family) -> list[nn.Module]:
    """Return the model's blocks, those of the encoder first; raises TrainingError like `stacks`."""
    return [block for stack in stacks(model, family) for block in stack]


def head_modules(model: PreTrainedModel, family: Family) -> dict[str, nn.Module]:
    """Return the parts of the model that stand on its backbone, by name: what a task has of its own."""
    backbone = model.base_model
    # A T5 that writes or finds answers is its own backbone: there, parts without blocks or embeddings are the head.
    lower: set[nn.Module] = {backbone}
    if backbone is model:
        inner = {*stacks(model, family), model.get_input_embeddings()}
        lower = {part for part in model.children() if not inner.isdisjoint(part.modules())}
    return {
        name: part
        for name, part in model.named_children()
        if part not in lower and any(True for _ in part.parameters())
    }


def learn_fresh(model: PreTrainedModel, fresh: tuple[str, ...]) -> None:
    """Let the weights learn that the checkpoint did not bring: they hold random numbers."""
    for name in fresh:
        model.get_parameter(name).requires_grad_(True)


def refuse_new_rows(method: str, new_rows: Sequence[int]) -> None:
    """Raise TrainingError where tokens were added and their embeddings would stay what they are at first."""
    if new_rows:
        raise TrainingError(
            f"model.add_tokens adds {len(new_rows):,} tokens, and method {method} freezes the embeddings: they would "
            f"keep the mean of their pieces for ever. Use method lora or delta, which train their rows, or full."
        )


def silence_frozen(model: PreTrainedModel, family: Family) -> None:
    """Set dropout to 0 in blocks, embeddings and encoders of which nothing learns: nothing is to be regularised."""
    below = [part for name, part in model.base_model.named_children() if name == "drop" or name.startswith("emb")]
    whole = [part for name, part in model.base_model.named_children() if name == "encoder"]
    for block in [*blocks(model, family), *whole, *([] if _learns(model.get_input_embeddings()) else below)]:
        if not _learns(block):
            _silence(block)


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def _silence(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for attribute, value in vars(part).items():
            if "dropout" in attribute and isinstance(value, float):
                setattr(part, attribute, 0.0)
