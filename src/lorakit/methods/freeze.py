"""Keep the lower part of the model as it is and train the rest."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from lorakit.checkpoints.ties import is_tied
from lorakit.errors import TrainingError
from lorakit.families import Family
from lorakit.methods.settings import FreezeSettings
from lorakit.methods.trainable import NEXT_TOKEN, blocks, learn_fresh, refuse_new_rows, stacks, summarise
from lorakit.types import Head, Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply(
    model: PreTrainedModel,
    settings: FreezeSettings,
    family: Family,
    head: Head = NEXT_TOKEN,
    fresh: tuple[str, ...] = (),
    new_rows: Sequence[int] = (),
) -> tuple[PreTrainedModel, Trainable]:
    """Freeze the embeddings and the first blocks, or what the patterns name; never unties the output layer.

    Raises:
        TrainingError: More blocks than there are, some of blocks that share their weights, a side that the model does
            not have, a pattern that matches nothing, new tokens, or nothing left to learn.
    """
    refuse_new_rows(settings.name, new_rows)
    notes = []
    if settings.patterns is not None:
        _freeze_patterns(model, settings.patterns)
    elif isinstance(settings.blocks, str):
        _freeze_side(model, settings.blocks, family)
    else:
        notes += _freeze_lower(model, settings.blocks, family)
    learn_fresh(model, fresh)
    if is_tied(model) and not model.get_input_embeddings().weight.requires_grad:
        notes.append("the output layer is tied to the embeddings, so it is frozen with them")
    return model, summarise(model, tuple(notes))


def _freeze_side(model: PreTrainedModel, side: str, family: Family) -> None:
    """Freeze the encoder with the embeddings that feed it, or the decoder with those it shares."""
    if family.kind != "encoder_decoder" or not hasattr(model.base_model, side):
        raise TrainingError(
            f"method.blocks is {side!r}, and this {family.model_type} model has no {side} of its own; give a number of "
            f"blocks, 0 to {_count(model, family)}."
        )
    if side == "encoder":
        _freeze_embeddings(model, family)
    getattr(model.base_model, side).requires_grad_(False)


def _freeze_lower(model: PreTrainedModel, asked: int | None, family: Family) -> list[str]:
    """Freeze the embeddings and the first blocks; return what is to be told about it."""
    total = _count(model, family)
    count = asked if asked is not None else 0 if family.shares_blocks else total // 2
    if count > total:
        raise TrainingError(f"method.blocks is {count}; this model has {total} blocks, so 0 to {total}.")
    if family.shares_blocks and 0 < count < total:
        raise TrainingError(
            f"method.blocks is {count}, but the {total} blocks of {family.model_type} share their weights: freeze 0 of "
            f"them or all {total}."
        )
    _freeze_embeddings(model, family)
    layers = blocks(model, family)
    for block in layers if count == total else layers[:count]:
        block.requires_grad_(False)
    if family.kind == "encoder_decoder" and count >= len(stacks(model, family)[0]):
        model.base_model.encoder.requires_grad_(False)
    if family.shares_blocks and asked is None:
        return ["the blocks share their weights, so that no half of them can be frozen: the embeddings alone are"]
    return []


def _count(model: PreTrainedModel, family: Family) -> int:
    return int(model.config.num_hidden_layers) if family.shares_blocks else len(blocks(model, family))


def _freeze_embeddings(model: PreTrainedModel, family: Family) -> None:
    """Freeze what feeds the blocks: token, position and type embeddings, their norms and projections."""
    inside = {id(weight) for block in blocks(model, family) for weight in block.parameters()}
    before = True
    for name, weight in model.base_model.named_parameters():
        if id(weight) in inside:
            before = False
        elif "emb" in name or name in _FEEDS or (before and not name.startswith(_FOLLOWS)):
            weight.requires_grad_(False)


_FEEDS = ("encoder.LayerNorm.weight", "encoder.LayerNorm.bias")
"""DeBERTa's norm of relative positions, which every block reads."""
_FOLLOWS = ("decoder.final_layer_norm", "decoder.project_out")
"""OPT's last layers, which are registered before its blocks."""


def _freeze_patterns(model: nn.Module, patterns: list[str]) -> None:
    names = [name for name, _ in model.named_parameters()]
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    if idle:
        raise TrainingError(
            f"method.patterns: {', '.join(map(repr, idle))} matches no weight. Names look like {names[0]!r} and "
            f"{names[-1]!r}; `*` stands for any part."
        )
    for name, weight in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            weight.requires_grad_(False)
