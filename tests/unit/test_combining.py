"""Pairs put together, held to full matrices and to numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from lorakit.adapters.combining import combined, summed
from lorakit.adapters.surgery import Pair, at_most, inner


def pair(rank: int, seed: int, scale: float = 1.0, rows: int = 12, columns: int = 9) -> Pair:
    draw = torch.Generator().manual_seed(seed)
    return Pair(torch.randn(rank, columns, generator=draw), torch.randn(rows, rank, generator=draw), scale)


def product(one: Pair) -> torch.Tensor:
    return one.scale * one.up_OR.double() @ one.down_RI.double()


def test_a_sum_of_pairs_is_that_of_their_matrices_and_of_their_ranks():
    one, other = pair(3, 0, 2.0), pair(2, 1, -0.5)
    found = summed([(one, 0.7), (other, -1.3)])
    torch.testing.assert_close(product(found), 0.7 * product(one) - 1.3 * product(other), rtol=0, atol=1e-5)
    assert (found.rank, found.scale) == (5, 1.0)


def test_svd_is_the_nearest_matrix_of_its_rank_to_the_sum():
    one, other = pair(3, 0), pair(2, 1)
    left, values, right = torch.linalg.svd(0.7 * product(one) + 0.3 * product(other))
    found = combined([(one, 0.7), (other, 0.3)], "svd", choose=at_most(2))
    torch.testing.assert_close(product(found), (left[:, :2] * values[:2]) @ right[:2], rtol=0, atol=1e-5)


def test_linear_multiplies_sums_of_factors_and_is_no_sum():
    one, other = pair(2, 0, 4.0), pair(2, 1)
    found = combined([(one, 0.5), (other, -0.25)], "linear")
    down = 2**0.5 * one.down_RI - 0.5 * other.down_RI
    up = 2**0.5 * one.up_OR + 0.5 * other.up_OR
    torch.testing.assert_close(product(found), (up @ down).double(), rtol=0, atol=1e-5)
    assert (product(found) - 2 * product(one) / 4 + 0.25 * product(other)).abs().max() > 0.1


def test_ties_takes_the_mean_of_those_that_share_the_heavier_sign():
    # Half of four numbers stay: of the first 3 and -4, of the second -2 and 6; -2 loses the vote against 3, -4 to 6.
    one = Pair(torch.tensor([[3.0, -4.0, 1.0, 0.5]]), torch.tensor([[1.0]]))
    other = Pair(torch.tensor([[-2.0, 6.0, 0.1, 0.2]]), torch.tensor([[1.0]]))
    found = combined([(one, 0.25), (other, 0.25)], "ties", density=0.5)
    torch.testing.assert_close(found.down_RI, torch.tensor([[0.5 * 3, 0.5 * 6, 0.0, 0.0]]))


def test_ties_svd_votes_on_the_changes_themselves():
    one = Pair(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, -4.0], [1.0, 2.0]]), 2.0)
    other = Pair(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[-2.0, 6.0], [5.0, 0.5]]))
    found = combined([(one, 1.0), (other, 0.5)], "ties_svd", density=1.0, choose=at_most(2))
    # Changes [[6, -8], [2, 4]] and [[-2, 6], [5, 0.5]]: sums of signs +, -, +, +; weights before the mean.
    expected = torch.tensor([[6.0, -8.0], [(2 + 2.5) / 2, (4 + 0.25) / 2]], dtype=torch.float64)
    torch.testing.assert_close(product(found), expected, rtol=0, atol=1e-5)


def test_dare_keeps_a_share_of_the_numbers_and_raises_them_by_it():
    one = Pair(torch.ones(1, 4000), torch.ones(4000, 1))
    torch.manual_seed(0)
    found = combined([(one, 1.0)], "dare", density=0.25)
    for factor in (found.down_RI, found.up_OR):
        assert set(factor.unique().tolist()) == {0.0, 4.0}
        assert float((factor > 0).float().mean()) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("ranks", [(3, 3), (2, 5), (10, 4)])
def test_the_inner_product_of_changes_is_that_of_their_matrices(ranks):
    one, other = pair(ranks[0], 0, 0.5), pair(ranks[1], 1, -2.0)
    assert inner(one, other) == pytest.approx(float((product(one) * product(other)).sum()), rel=1e-12)
    assert inner(one, one) == pytest.approx(float(product(one).square().sum()), rel=1e-12)
