"""The changes of several adapters to one layer made one: their sum, and what PEFT's `add_weighted_adapter` has beside.

Results are those of PEFT, up to rounding and the order of ranks. Only `ties_svd`, which compares the changes number by
number, builds a full matrix, of one layer at a time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from lorakit.adapters.surgery import Choice, Pair, extracted, truncated

if TYPE_CHECKING:
    from torch import Tensor

How = Literal["cat", "svd", "linear", "dare", "ties", "ties_svd"]
HOWS: tuple[How, ...] = get_args(How)
RANKED: tuple[How, ...] = ("svd", "ties_svd")
"""Those that end with a cut to a rank."""
SPARSE: tuple[How, ...] = ("dare", "ties", "ties_svd")
"""Those that drop numbers first."""
BY_FACTOR: tuple[How, ...] = ("linear", "dare", "ties")
"""Those that take the factors one by one, all A and all B, which must be of one rank."""

Weighted = tuple[Pair, float]
"""A change and its weight, finite and not 0."""

_Merge = Callable[[list["Tensor"], "Tensor"], "Tensor"]
"""Takes tensors of one shape and a weight for each, shape (K,)."""


def combined(changes: Sequence[Weighted], how: How, density: float = 1.0, choose: Choice | None = None) -> Pair:
    """Return one pair for the weighted changes of a layer.

    Args:
        changes: At least one.
        how: ``cat``: the sum, exactly. ``svd``: the nearest pair to it of a lower rank. ``linear``: A and B added each
            for itself. ``dare``: so too, of randomly thinned factors (Yu et al. 2023, arXiv:2311.03099, section 3.2).
            ``ties``: of each number the mean over those that share the sign with most weight, after the small ones were
            dropped (Yadav et al. 2023, arXiv:2306.01708, section 4), for each factor; ``ties_svd``: of the changes
            themselves.
        density: Share of the numbers that `SPARSE` ones keep, in (0, 1].
        choose: Takes the singular values of `RANKED` ones.

    Returns:
        Factors in float32; random numbers are drawn from torch's own stream.
    """
    from peft.utils import merge_utils

    merges: dict[How, _Merge] = {
        "linear": merge_utils.task_arithmetic,
        "dare": partial(merge_utils.dare_linear, density=density),
        "ties": partial(merge_utils.ties, density=density),
    }
    with warnings.catch_warnings():
        # A density of 1 keeps all; PEFT warns of it.
        warnings.filterwarnings("ignore", "The density", UserWarning)
        if how in merges:
            return _by_factor(changes, merges[how])
        if how == "ties_svd":
            assert choose is not None
            return extracted(_by_number(changes, merges["ties"]), choose)[0]
    whole = summed(changes)
    if how == "cat":
        return whole
    assert choose is not None
    return truncated(whole, choose)[0]


def summed(changes: Sequence[Weighted]) -> Pair:
    """Return the weighted sum exactly: factors laid side by side, so that ranks add up.

    ``w1 s1 B1 A1 + w2 s2 B2 A2 = [w1 s1 B1, w2 s2 B2] @ [A1; A2]``
    """
    import torch

    down_RI = torch.cat([pair.down_RI.float() for pair, _ in changes])
    up_OR = torch.cat([pair.up_OR.float() * (pair.scale * weight) for pair, weight in changes], dim=1)
    return Pair(down_RI, up_OR)


def _by_factor(changes: Sequence[Weighted], merge: _Merge) -> Pair:
    """Merge all A and all B, each with the root of weight and scale; the sign of a weight stands on A's side.

    ``(a1 A1 + a2 A2)`` times ``(b1 B1 + b2 B2)`` holds products of one adapter's A and another's B, which no sum of
    the changes has.
    """
    import torch

    whole = [pair.scale * weight for pair, weight in changes]
    roots_K = torch.tensor([math.sqrt(abs(one)) for one in whole])
    signs_K = torch.tensor([math.copysign(1, one) for one in whole])
    down_RI = merge([pair.down_RI.float() for pair, _ in changes], roots_K * signs_K)
    up_OR = merge([pair.up_OR.float() for pair, _ in changes], roots_K)
    return Pair(down_RI, up_OR)


def _by_number(changes: Sequence[Weighted], merge: _Merge) -> Tensor:
    """Return the merged full changes, shape (O, I), float32."""
    import torch

    full = [pair.up_OR.float() @ pair.down_RI.float() * pair.scale for pair, _ in changes]
    return merge(full, torch.tensor([weight for _, weight in changes]))
