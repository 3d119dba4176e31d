"""Train a low-rank pair of d x r and r x k beside each frozen matrix; PEFT owns names, weights and files."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from lorakit.checkpoints import token_rows
from lorakit.checkpoints.ties import is_tied
from lorakit.errors import TrainingError, nearest
from lorakit.families import Family
from lorakit.methods.settings import LoraSettings
from lorakit.methods.trainable import NEXT_TOKEN, head_modules, stacks, summarise
from lorakit.types import Head, HeadTask, Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TASK_TYPES: dict[HeadTask, str] = {
    "causal_lm": "CAUSAL_LM",
    "seq2seq_lm": "SEQ_2_SEQ_LM",
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
}
"""What PEFT calls a head. Its QUESTION_ANS is not used: PEFT 0.21 drops token types and positions there."""


def apply(
    model: PreTrainedModel,
    settings: LoraSettings,
    family: Family,
    head: Head = NEXT_TOKEN,
    fresh: tuple[str, ...] = (),
    new_rows: Sequence[int] = (),
) -> tuple[PreTrainedModel, Trainable]:
    """Wrap `model` so that W becomes W + alpha / rank * B A (Hu et al. 2021, arXiv:2106.09685, equation 3).

    A classifier, and whatever else the checkpoint did not bring, learns as a whole and is saved beside the pairs;
    so do the rows of new tokens in embeddings and output layer.

    Returns:
        PEFT's wrapper around the same model, only the pairs, such heads and such rows learning, in float32.

    Raises:
        TrainingError: A target matches no linear layer, the rank exceeds a layer's smaller side, there are not so many
            last blocks, or rows of new tokens cannot learn in this model.
    """
    from peft import LoraConfig, get_peft_model

    whole, notes = _learned_whole(model, family, fresh)
    layers = linear_layers(model, family, whole)
    stack, numbers = _last_blocks(model, family, settings.last_blocks)
    if stack:
        layers = {name: layer for name, layer in layers.items() if _within(name, [f"{stack}.{at}" for at in numbers])}
    targets = _targets(settings, family, layers)
    matched = {name: layer for name, layer in layers.items() if _ends(name, targets)}
    _check_rank(settings.rank, matched)
    pattern = stack.rpartition(".")[-1]
    # PEFT matches ends of names, and numbers of blocks: the `dense` of a block is also that of a pooler, and block 3 of
    # a decoder also that of its encoder.
    others = [name for name, _ in model.named_modules() if _ends(name, targets) and name not in matched]
    beside = [name for name in others if not _within(name, whole) and _numbered(name, pattern, numbers)]
    config = LoraConfig(
        task_type=TASK_TYPES.get(head.task),
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(targets),
        layers_to_transform=numbers or None,
        layers_pattern=pattern or None,
        exclude_modules=beside or None,
        modules_to_save=whole or None,
        trainable_token_indices=_rows(model, new_rows, whole),
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        # GPT-2's Conv1D keeps its matrix as (in, out).
        fan_in_fan_out=any(not isinstance(layer, nn.Linear) for layer in matched.values()),
    )
    adapted = get_peft_model(model, config)
    token_rows.complete(adapted)
    return adapted, summarise(adapted, notes)


def _rows(model: PreTrainedModel, ids: Sequence[int], whole: list[str]) -> dict[str, list[int]] | None:
    """Return layer -> rows of new tokens that learn there; a layer that learns as a whole has them in it."""
    if not ids:
        return None
    return {name: rows for name, rows in token_rows.layers_with(model, ids).items() if not _within(name, whole)} or None


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
        and not _within(name, whole)
        and "pooler" not in name.split(".")
    }


def _learned_whole(model: PreTrainedModel, family: Family, fresh: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
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
    whole = sorted(name for name in owners if not _within(name, owners - {name}))
    if not kept:
        return whole, ()
    return whole, (f"{', '.join(kept)} is new and stays as it is: saving it would copy the embeddings it belongs to",)


def _within(name: str, modules: Collection[str]) -> bool:
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


def _numbered(name: str, pattern: str, numbers: list[int]) -> bool:
    """Whether PEFT would count a module among blocks of these numbers, in whatever list; without numbers it does."""
    found = re.search(rf"(?:^|\.){pattern}\.(\d+)\.", name)
    return not numbers or (found is not None and int(found[1]) in numbers)


def _check_rank(rank: int, layers: dict[str, Any]) -> None:
    for name, layer in layers.items():
        smaller = min(layer.weight.shape)
        if rank > smaller:
            raise TrainingError(
                f"method.rank is {rank}, but {name} is {' x '.join(map(str, layer.weight.shape))}: a pair of "
                f"rank above {smaller} would be larger than the matrix. Choose a rank of at most {smaller}."
            )


def _targets(settings: LoraSettings, family: Family, layers: dict[str, Any]) -> set[str]:
    ends = {name.rsplit(".", 1)[-1] for name in layers}
    if settings.targets == "all-linear" or (settings.targets is None and not family.targets):
        return ends
    if settings.targets is None:
        # A family lists the layers of all its members: plain and gated ones.
        return {target for target in family.targets if any(_ends(name, {target}) for name in layers)}
    for target in sorted(settings.targets):
        if not any(_ends(name, {target}) for name in layers):
            raise TrainingError(
                f"method.targets: {target!r} matches no linear layer of this {family.model_type} model. "
                f"Its layers end in {', '.join(sorted(ends))}. {nearest(target, ends)}".rstrip()
            )
    return set(settings.targets)


def _ends(name: str, targets: set[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)
