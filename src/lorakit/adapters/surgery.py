"""The arithmetic of low-rank pairs: cut to a rank, or drawn from a difference. No product is built.

Sums are taken in float64, where rounding is far below what float32 can hold. K counts singular values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Choice = Callable[["Tensor"], int]
"""Takes singular values, shape (K,), largest first; returns how many are kept, from 1 to K."""

Blocks = Callable[[], Iterable["Tensor"]]
"""Gives the rows of a matrix from the first to the last, some at a time, each time it is called."""

_ROWS = 1024
"""Rows of a change that are widened to float64 at once."""


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

    @property
    def turned(self) -> Pair:
        """The pair of the transposed change."""
        return Pair(self.up_OR.T.contiguous(), self.down_RI.T.contiguous(), self.scale)

    def first(self, rank: int) -> Pair:
        """Return the nearest pair of at most `rank`, of one that is ordered as `truncated` and `extracted` do it."""
        return Pair(self.down_RI[:rank].contiguous(), self.up_OR[:, :rank].contiguous(), self.scale)


def inner(one: Pair, other: Pair) -> float:
    """Return the sum of the products of the numbers of two changes, ``trace(one.T @ other)``, in float64.

    ``trace((B1 A1).T B2 A2) = sum((B1.T B2) * (A1 A2.T))``: of each side a matrix as small as the ranks. That of a
    change with itself is its squared Frobenius norm.
    """
    ups_RS = one.up_OR.double().T @ other.up_OR.double()
    downs_RS = one.down_RI.double() @ other.down_RI.double().T
    return float((ups_RS * downs_RS).sum()) * one.scale * other.scale


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

    Args:
        change_OI: Trained weight less the weight before, float32.
        choose: Takes the singular values, shape (min(O, I),).

    Returns:
        As `truncated`.
    """
    return extracted_by_blocks(lambda: change_OI.split(_ROWS), change_OI.shape, choose)


def extracted_by_blocks(blocks: Blocks, shape_OI: Sequence[int], choose: Choice) -> tuple[Pair, Tensor]:
    """Return what `extracted` does, of a change that is held whole only where it has fewer rows than columns.

    The right singular vectors V are eigenvectors of ``change.T @ change``, of the smaller side; ``up = change @ V``.
    Squares halve the digits: in float64 as many are left as float32, in which weights come, holds.

    Args:
        blocks: The change, float32; gone through twice.
        shape_OI: Of the change.
        choose: Takes the singular values, shape (min(O, I),).
    """
    import torch

    rows, columns = shape_OI
    if rows < columns:
        change_IO = torch.cat(list(blocks())).T
        pair, values_K = extracted(change_IO, choose)
        return pair.turned, values_K
    gram_II = torch.zeros(columns, columns, dtype=torch.float64)
    for rows_NI in blocks():
        wide_NI = rows_NI.double()
        gram_II.addmm_(wide_NI.T, wide_NI)
    squares_K, vectors_IK = torch.linalg.eigh(gram_II)
    values_K = squares_K.flip(0).clamp(min=0).sqrt()
    rank = choose(values_K)
    root_R = values_K[:rank].sqrt()
    vectors_IR = vectors_IK.flip(1)[:, :rank]
    # A value of zero has a column of zeros.
    whole_IR = vectors_IR / root_R.clamp(min=torch.finfo(torch.float64).tiny)
    up_OR = torch.cat([(rows_NI.double() @ whole_IR).float() for rows_NI in blocks()])
    return Pair((vectors_IR * root_R).T.float().contiguous(), up_OR), values_K
