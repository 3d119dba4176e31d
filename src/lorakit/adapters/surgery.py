"""The arithmetic of low-rank pairs: cut to a rank, drawn from a difference, added up, compared. No product is built.

Sums are taken in float64, where rounding is far below what float32 can hold. K counts singular values.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

How = Literal["linear", "cat", "svd", "ties", "dare"]
"""How several pairs become one."""

OF_ONE_RANK: tuple[How, ...] = ("linear", "ties", "dare")
"""Those that add factors number by number, for which all pairs must be of one rank."""

Choice = Callable[["Tensor"], int]
"""Takes singular values, shape (K,), largest first; returns how many are kept, from 1 to K."""

_ROWS = 1024
"""Rows of a difference that are widened to float64 at once."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What training added to a weight, as factors: ``scale * up_OR @ down_RI``."""

    down_RI: Tensor
    up_OR: Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Columns of one factor, rows of the other."""
        return self.down_RI.shape[0]

    @property
    def parameters(self) -> int:
        """Numbers in both factors."""
        return self.down_RI.numel() + self.up_OR.numel()


def at_most(rank: int) -> Choice:
    """Keep `rank` singular values, fewer where the others are zero but for rounding."""
    return lambda values_K: max(1, min(rank, _nonzero(values_K)))


def share(energy: float) -> Choice:
    """Keep the fewest singular values whose squares sum to `energy`, in (0, 1], of the sum of all."""

    def choose(values_K: Tensor) -> int:
        squares_K = values_K.square()
        short = int((squares_K.cumsum(0) < energy * squares_K.sum() * (1 - 1e-12)).sum())
        return max(1, min(short + 1, _nonzero(values_K)))

    return choose


def _nonzero(values_K: Tensor) -> int:
    # Factors are stored in float32: below that precision of the largest one stands rounding.
    return int((values_K > 1e-7 * values_K.max()).sum())


def kept(values_K: Tensor, rank: int) -> float:
    """Return the share of the squared Frobenius norm that the `rank` largest singular values hold, in [0, 1]."""
    squares_K = values_K.square()
    whole = float(squares_K.sum())
    return float(squares_K[:rank].sum()) / whole if whole else 1.0


def truncated(pair: Pair, choose: Choice) -> tuple[Pair, Tensor]:
    """Return the pair of lower rank that is nearest in Frobenius norm, and all singular values.

    (Eckart and Young 1936.) With ``up = Q R`` and ``down.T = P S``, the singular values of ``up @ down`` are those of
    the small ``R S.T``.

    Args:
        pair: Of rank R.
        choose: Takes the singular values, shape (min(O, I, R),).

    Returns:
        Factors in float32 with scale 1, which share each singular value evenly; and the values, float64.
    """
    import torch

    left_OK, above_KR = torch.linalg.qr(pair.up_OR.double())
    right_IK, below_KR = torch.linalg.qr(pair.down_RI.double().T)
    inner_left, values_K, inner_right = torch.linalg.svd(above_KR @ below_KR.T, full_matrices=False)
    values_K = values_K * abs(pair.scale)
    rank = choose(values_K)
    root_R = values_K[:rank].sqrt()
    up_OR = (left_OK @ inner_left[:, :rank]) * root_R * math.copysign(1, pair.scale)
    down_RI = (inner_right[:rank] @ right_IK.T) * root_R[:, None]
    return Pair(down_RI.float(), up_OR.float()), values_K


def extracted(change_OI: Tensor, choose: Choice) -> tuple[Pair, Tensor]:
    """Return the pair that is nearest in Frobenius norm to a full change of a weight, and all singular values.

    The right singular vectors V are eigenvectors of ``change.T @ change``, of the smaller side; ``up = change @ V``.
    Squares halve the digits: in float64 as many are left as float32, in which weights come, holds.

    Args:
        change_OI: Trained weight less the weight before, float32.
        choose: Takes the singular values, shape (min(O, I),).

    Returns:
        As `truncated`.
    """
    import torch

    if change_OI.shape[0] < change_OI.shape[1]:
        turned, values_K = extracted(change_OI.T, choose)
        return Pair(turned.up_OR.T.contiguous(), turned.down_RI.T.contiguous()), values_K
    gram_II = torch.zeros(change_OI.shape[1], change_OI.shape[1], dtype=torch.float64)
    for rows_NI in change_OI.split(_ROWS):
        wide_NI = rows_NI.double()
        gram_II.addmm_(wide_NI.T, wide_NI)
    squares_K, vectors_IK = torch.linalg.eigh(gram_II)
    values_K = squares_K.flip(0).clamp(min=0).sqrt()
    rank = choose(values_K)
    root_R = values_K[:rank].sqrt()
    vectors_IR = vectors_IK.flip(1)[:, :rank]
    whole_OR = torch.cat([rows_NI.double() @ vectors_IR for rows_NI in change_OI.split(_ROWS)])
    # A value of zero has a column of zeros.
    up_OR = whole_OR / root_R.clamp(min=torch.finfo(torch.float64).tiny)
    return Pair((vectors_IR * root_R).T.float().contiguous(), up_OR.float()), values_K


def combined(
    pairs: Sequence[Pair], weights: Sequence[float], how: How, density: float = 1.0, rank: int | None = None
) -> Pair:
    """Return one pair for several, as PEFT's `add_weighted_adapter` does.

    ``cat`` is the exact sum of the weighted products, of all ranks together; ``svd`` is that sum, cut to `rank`. The
    others weigh and add the factors themselves, each with the square root of its weight and scale: not the sum of the
    products, to which products of one pair's B and another's A are added.

    Args:
        pairs: Of one weight; for ``linear``, ``ties`` and ``dare`` of one rank.
        weights: Of each pair, any sign.
        how: ``ties``: Yadav et al. 2023, arXiv:2306.01708; ``dare``: Yu et al. 2023, arXiv:2311.03099, whose draws come
            from torch's own random numbers; PEFT's ``dare_linear``.
        density: Share of numbers that ``ties`` and ``dare`` keep, in (0, 1].
        rank: Of ``svd``; None: the largest of the pairs.
    """
    import torch

    if how in ("cat", "svd"):
        down_RI = torch.cat([pair.down_RI * (weight * pair.scale) for pair, weight in zip(pairs, weights, strict=True)])
        whole = Pair(down_RI, torch.cat([pair.up_OR for pair in pairs], dim=1))
        return whole if how == "cat" else truncated(whole, at_most(rank or max(pair.rank for pair in pairs)))[0]
    from peft.utils import merge_utils

    strengths = [weight * pair.scale for pair, weight in zip(pairs, weights, strict=True)]
    up_weights = torch.tensor([math.sqrt(abs(strength)) for strength in strengths])
    down_weights = up_weights * torch.tensor([math.copysign(1, strength) for strength in strengths])

    def added(factors: list[Tensor], weights: Tensor) -> Tensor:
        with warnings.catch_warnings():
            # It warns where a density of 1 leaves all numbers as they are.
            warnings.simplefilter("ignore")
            found: Tensor
            if how == "linear":
                found = merge_utils.task_arithmetic(factors, weights)
            elif how == "ties":
                found = merge_utils.ties(factors, weights, density)
            else:
                found = merge_utils.dare_linear(factors, weights, density)
        return found

    return Pair(
        added([pair.down_RI for pair in pairs], down_weights), added([pair.up_OR for pair in pairs], up_weights)
    )


def inner_product(one: Pair, other: Pair) -> float:
    """Return the sum of the products of all entries of two changes of one weight: a squared norm for ``one is other``.

    ``<B A, D C> = <B.T D, A C.T>``, of the size of the ranks.
    """
    ups_RR = one.up_OR.double().T @ other.up_OR.double()
    downs_RR = one.down_RI.double() @ other.down_RI.double().T
    return one.scale * other.scale * float((ups_RR * downs_RR).sum())
