"""Proof at the first step that what should learn does: a cheap look at every weight, once a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from lorakit.errors import TrainingError


def reached(
    model: nn.Module,
    optimizer_groups: list[Mapping[str, list[nn.Parameter]]],
    reaches: Callable[[nn.Parameter], bool] = lambda weight: weight.grad is not None,
) -> str:
    """Check, after the first backward pass, that gradients reach every weight that learns and no other.

    Args:
        model: Unwrapped, its gradients still in place.
        optimizer_groups: The optimizer's parameter groups; they must hold the same weights.
        reaches: Whether a weight has a gradient.

    Returns:
        A sentence for the screen.

    Raises:
        TrainingError: A weight that should learn got no gradient or is unknown to the optimizer, or a frozen one got
            one.
    """
    held = {id(weight) for group in optimizer_groups for weight in group["params"]}
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    lost = [name for name, weight in learned.items() if not reaches(weight) or id(weight) not in held]
    leaked = [name for name, weight in model.named_parameters() if not weight.requires_grad and reaches(weight)]
    if lost or leaked:
        what = f"no gradient reaches {lost[0]}" if lost else f"a gradient reaches the frozen {leaked[0]}"
        raise TrainingError(
            f"{what} ({len(lost)} of {len(learned)} trained tensors are cut off, {len(leaked)} frozen ones are not). "
            f"This model type cannot be trained so; try another method, or train.gradient_checkpointing: false."
        )
    return f"checks: gradients reach all {len(learned)} trained tensors and no other"
