"""Train a low-rank pair of d x r and r x k beside each frozen matrix; PEFT owns names, weights and files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from lorakit.checkpoints import token_rows
from lorakit.errors import TrainingError, nearest
from lorakit.families import Family
from lorakit.methods.settings import LoraSettings
from lorakit.methods.targets import choose, ends, learned_whole, within
from lorakit.methods.trainable import NEXT_TOKEN, summarise
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

    whole, notes = learned_whole(model, family, fresh)
    chosen = choose(model, settings, family, whole)
    _check_patterns(settings, chosen.layers)
    _check_ranks(settings, chosen.layers)
    pattern, numbers = chosen.stack.rpartition(".")[-1], chosen.blocks
    # PEFT matches ends of names, and numbers of blocks: the `dense` of a block is also that of a pooler, and block 3 of
    # a decoder also that of its encoder.
    alike = [name for name, _ in model.named_modules() if ends(name, chosen.ends) and name not in chosen.layers]
    beside = [name for name in alike if not within(name, whole) and _numbered(name, pattern, numbers)]
    config = LoraConfig(
        task_type=TASK_TYPES.get(head.task),
        r=settings.rank,
        lora_alpha=settings.alpha,
        rank_pattern=dict(settings.rank_pattern or {}),
        alpha_pattern=dict(settings.alpha_pattern or {}),
        lora_dropout=settings.dropout,
        target_modules=sorted(chosen.ends),
        layers_to_transform=numbers or None,
        layers_pattern=pattern or None,
        exclude_modules=beside or None,
        modules_to_save=whole or None,
        trainable_token_indices=_rows(model, new_rows, whole),
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        # GPT-2's Conv1D keeps its matrix as (in, out).
        fan_in_fan_out=any(not isinstance(layer, nn.Linear) for layer in chosen.layers.values()),
    )
    adapted = get_peft_model(model, config)
    token_rows.complete(adapted)
    return adapted, summarise(adapted, notes)


def _rows(model: PreTrainedModel, ids: Sequence[int], whole: list[str]) -> dict[str, list[int]] | None:
    """Return layer -> rows of new tokens that learn there; a layer that learns as a whole has them in it."""
    if not ids:
        return None
    return {name: rows for name, rows in token_rows.layers_with(model, ids).items() if not within(name, whole)} or None


def _numbered(name: str, pattern: str, numbers: list[int]) -> bool:
    """Whether PEFT would count a module among blocks of these numbers, in whatever list; without numbers it does."""
    found = re.search(rf"(?:^|\.){pattern}\.(\d+)\.", name)
    return not numbers or (found is not None and int(found[1]) in numbers)


def _check_patterns(settings: LoraSettings, layers: dict[str, Any]) -> None:
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(settings, field) or ():
            if not any(ends(name, {key}) for name in layers):
                known = {name.rsplit(".", 1)[-1] for name in layers}
                raise TrainingError(
                    f"method.{field}: no layer that gets a pair is called {key!r}, or ends so. They end in "
                    f"{', '.join(sorted(known))}. {nearest(key, known)}".rstrip()
                )


def _check_ranks(settings: LoraSettings, layers: dict[str, Any]) -> None:
    for name, layer in layers.items():
        # The first that fits, as PEFT looks it up.
        rank = next((rank for key, rank in (settings.rank_pattern or {}).items() if ends(name, {key})), settings.rank)
        smaller = min(layer.weight.shape)
        if rank > smaller:
            raise TrainingError(
                f"method: rank is {rank} for {name}, which is {' x '.join(map(str, layer.weight.shape))}: a pair of "
                f"rank above {smaller} would be larger than the matrix. Choose a rank of at most {smaller}."
            )
