"""Which fast paths are taken where text is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorakit.errors import LorakitError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lorakit.generation.settings import DecodingSettings
    from lorakit.generation.speculation import Drafter

WAYS = ("prompt",)
"""Drafts that can be asked for; those in 8 bits are taken where they are faster."""

_LEAST_WEIGHTS = 20_000_000
"""Reading fewer weights than these takes less time than all else in a step, so that drafts would save none."""


def check_speculate(speculate: str | None, settings: DecodingSettings | None) -> None:
    """Raise LorakitError where drafts cannot be written so, or serve no purpose; loads nothing."""
    if speculate is None:
        return
    if speculate not in WAYS:
        raise LorakitError(f'speculate is "{speculate}"; must be prompt. {nearest(speculate, WAYS)}'.rstrip())
    if settings is not None and (settings.num_beams > 1 or settings.num_samples > 1):
        raise LorakitError(
            "speculate drafts one answer at a time, and num_beams and num_samples write several side by side; "
            "leave out one of the two."
        )


def speed_up(model: PreTrainedModel, quantized: bool) -> Drafter | None:
    """Take the fast paths that a processor offers; return who drafts, where that is faster.

    Args:
        model: On the processor, in float32 or bfloat16.
        quantized: Whether its products will be in 8 bits anyway.
    """
    from lorakit.fast import activations, products
    from lorakit.generation.speculation import RoundedDrafts

    activations.fuse(model)
    if quantized:
        return None
    products.take(model)
    weights = sum(parameter.numel() for parameter in model.parameters())
    return RoundedDrafts(model) if products.has_vnni() and weights >= _LEAST_WEIGHTS else None


def lookup(model: PreTrainedModel) -> Drafter:
    """Return who drafts from the prompt.

    Raises:
        LorakitError: The attention of this model cannot take drafts back.
    """
    from lorakit.generation import caching
    from lorakit.generation.speculation import PromptLookup

    config = model.config.get_text_config(decoder=True)
    if not caching.forgets(caching.growing(config)):
        raise LorakitError(
            f"speculate needs a model that keeps all it has read, to take back drafts that were wrong; type "
            f"{config.model_type} attends through a window. Leave it out."
        )
    return PromptLookup()
