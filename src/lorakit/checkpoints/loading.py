"""Weights read into a model with a head, every tensor accounted for: wrong, missing, or new."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.checkpoints import heads, inspection, weights
from lorakit.errors import CheckpointError
from lorakit.families import Kind
from lorakit.types import Head

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_model(
    folder: Path,
    config: PretrainedConfig,
    head: Head,
    kind: Kind,
    claimed: bool,
    dtype: str = "float32",
    attention: str = "sdpa",
    seed: int = 0,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Read the weights of `folder` into a model with `head`, on the CPU, in eval mode.

    Args:
        folder: Of the checkpoint.
        config: Already says what the scores of the head mean.
        head: The output wanted.
        kind: Of the model.
        claimed: Whether the checkpoint says it holds this head; one that it lacks is then a fault, not new.
        dtype: Of all weights; ``auto`` for the stored one.
        attention: Name of the attention function.
        seed: Draws the weights of a new head.

    Returns:
        The model, and the names of the weights that the checkpoint did not bring: a new head, a new pooler.

    Raises:
        CheckpointError: A tensor is missing, not expected, of another shape, or not finite.
    """
    import torch

    model_class = heads.model_class(head, config)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, info = model_class.from_pretrained(
                str(folder),
                config=config,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                attn_implementation=_offered(model_class, config, attention),
                local_files_only=True,
                output_loading_info=True,
                # Shapes that differ are listed below, together with every other fault.
                ignore_mismatched_sizes=True,
            )
    except (ValueError, OSError, RuntimeError, TypeError, KeyError, AttributeError) as problem:
        raise CheckpointError(f"{folder} cannot be loaded: {problem}") from problem
    fresh = _account_for(folder, model, info, kind, claimed)
    damaged = [name for name, tensor in model.named_parameters() if not weights.is_finite(tensor)]
    if damaged:
        raise CheckpointError(f"{folder} is damaged: {_listed(damaged)} holds numbers that are not finite.")
    return model.eval(), fresh


def _offered(model_class: Any, config: PretrainedConfig, attention: str) -> str:
    """Return `attention`, or the plain one for types without `sdpa` (bloom, gpt_neo), bounded scores (gemma2) and umt5.

    transformers 5.17 offers `sdpa` for gemma2 all the same, and leaves the bound out without an error.
    """
    bounded = getattr(config, "attn_logit_softcapping", None) is not None
    # In transformers 5.17 a decoder of this type would see the tokens that it is to write.
    sees_ahead = config.model_type == "umt5"
    plain = not model_class._supports_sdpa or bounded or sees_ahead
    return "eager" if attention == "sdpa" and plain else attention


def _account_for(
    folder: Path, model: PreTrainedModel, info: dict[str, Any], kind: Kind, claimed: bool
) -> tuple[str, ...]:
    """Return the names of new weights; raise CheckpointError where the backbone is not the checkpoint's own."""
    missing = set(info["missing_keys"])
    misshapen = {str(entry[0]) for entry in info["mismatched_keys"]}
    unexpected = {name for name in info["unexpected_keys"] if not inspection.is_buffer(name)}
    new = set()
    if not claimed:
        new = {name for name in missing | misshapen if not in_backbone(model, name)}
    if not claimed or kind == "encoder":
        # Other heads of the checkpoint; an encoder's file often holds those it was pretrained with.
        unexpected = {name for name in unexpected if in_backbone(model, name)}
    faults = [
        f"  {label:<10} {len(names)}: {_listed(sorted(names))}"
        for label, names in (
            ("missing", missing - new),
            ("unexpected", unexpected),
            ("misshapen", misshapen - new),
        )
        if names
    ]
    if faults and not claimed and _bare(missing - new) & _bare(set(info["unexpected_keys"])):
        raise CheckpointError(
            f"transformers' {type(model).__name__} looks for the weights under other names than files of the type "
            f"{model.config.model_type} have, and would leave them out. Choose another objective, or another type of "
            f"model: the README has a table of what goes together."
        )
    if faults:
        total = len(model.state_dict())
        raise CheckpointError(
            "\n".join(
                [f"{folder}: the weights are not those of a {type(model).__name__} with {total} tensors:", *faults]
            )
        )
    known = {name for name, _ in model.named_parameters()}
    return tuple(name for name in (name for name, _ in model.named_parameters()) if name in new & known)


def _bare(names: set[str]) -> set[str]:
    """Return names of weights without their first part, which is that of the backbone."""
    return {name.partition(".")[2] for name in names}


def in_backbone(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight belongs to the model below its head; a pooler belongs to the head.

    Args:
        model: With its head.
        name: In the model or in a checkpoint's file, with or without the prefix of the backbone.
    """
    backbone = model.base_model
    inner = name.removeprefix(f"{model.base_model_prefix}.") if backbone is not model else name
    first = inner.split(".")[0]
    # A T5 that finds answers is its own backbone.
    if first in ("pooler", "qa_outputs"):
        return False
    parts = {child for child, _ in backbone.named_children()} | {
        weight.split(".")[0] for weight, _ in backbone.named_parameters()
    }
    outer = set() if backbone is model else {child for child, _ in model.named_children()}
    # With a prefix it is inside for certain; without one, a name that the head has too is the head's.
    return first in parts and (inner != name or backbone is model or first not in outer)


def _listed(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers says while loading: its progress bars, and warnings that lorakit checks itself."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
