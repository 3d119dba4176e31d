"""Which fast paths are taken where text is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lorakit.errors import LorakitError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lorakit.generation.captured import CapturedSteps
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


@dataclass(frozen=True, slots=True)
class FastPaths:
    """Ways by which a model writes sooner."""

    drafter: Drafter | None = None
    """Proposes tokens where one answer is written at a time."""
    alone: bool = False
    """Whether answers are written one at a time, so that each has drafts."""
    steps: CapturedSteps | None = None
    """Read tokens on a GPU."""
    told: tuple[str, ...] = ()
    """Those that are taken, in words, and why one is not; drafts and captured steps are counted as they come."""

    def without_rounded_drafts(self) -> FastPaths:
        """Return these for a model that is held in 8 bits itself."""
        from lorakit.generation.speculation import RoundedDrafts

        return replace(self, drafter=None) if isinstance(self.drafter, RoundedDrafts) else self


def fast_paths(model: PreTrainedModel, *, fast: bool, quantized: bool, speculate: str | None) -> FastPaths:
    """Take the fast paths of the place where `model` is.

    Args:
        model: In eval mode, on its device.
        fast: Whether to take those that need not be asked for.
        quantized: Whether its products will be in 8 bits anyway.
        speculate: `prompt` or None.

    Raises:
        LorakitError: The attention of this model cannot take back the drafts that are asked for.
    """
    import torch

    found = FastPaths()
    if fast and model.device.type == "cpu" and model.dtype != torch.float16:
        found = _on_a_processor(model, quantized)
    elif fast and model.device.type == "cuda" and speculate is None:
        found = _on_a_gpu(model)
    return found if speculate is None else replace(found, drafter=_lookup(model), alone=True)


def _on_a_processor(model: PreTrainedModel, quantized: bool) -> FastPaths:
    from lorakit.fast import activations, products
    from lorakit.generation.speculation import RoundedDrafts

    told = ["GELU in one kernel"] if activations.fuse(model) else []
    if quantized:
        return FastPaths(told=tuple(told))
    if kernels := products.take(model):
        told.append(kernels)
    weights = sum(parameter.numel() for parameter in model.parameters())
    drafts = products.has_vnni() and weights >= _LEAST_WEIGHTS
    return FastPaths(drafter=RoundedDrafts(model) if drafts else None, told=tuple(told))


def _on_a_gpu(model: PreTrainedModel) -> FastPaths:
    from lorakit.generation import captured

    steps, reason = captured.prove(model)
    return FastPaths(steps=steps, told=(f"no captured steps: {reason}",) if reason else ())


def _lookup(model: PreTrainedModel) -> Drafter:
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
