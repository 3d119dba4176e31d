"""Cutting and drawing pairs, held to the full matrices in float64, which the code never builds."""

from __future__ import annotations

import pytest
import torch

from lorakit.adapters.surgery import Pair, at_most, extracted, kept, share, truncated

SHAPES = [(24, 16, 5), (16, 24, 5), (12, 12, 12), (6, 20, 9)]
"""Rows, columns and rank; the last rank is above the smaller side."""


def pair(rows: int, columns: int, rank: int, seed: int = 0, scale: float = 1.0) -> Pair:
    draw = torch.Generator().manual_seed(seed)
    return Pair(torch.randn(rank, columns, generator=draw), torch.randn(rows, rank, generator=draw), scale)


def product(one: Pair) -> torch.Tensor:
    return one.scale * one.up_OR.double() @ one.down_RI.double()


def nearest(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


@pytest.mark.parametrize("scale", [1.0, 0.25, -3.0])
@pytest.mark.parametrize(("rows", "columns", "rank"), SHAPES)
def test_a_cut_pair_is_the_nearest_matrix_of_its_rank(rows, columns, rank, scale):
    given = pair(rows, columns, rank, scale=scale)
    found, _ = truncated(given, at_most(3))
    assert (found.rank, found.scale) == (3, 1.0)
    torch.testing.assert_close(product(found), nearest(product(given), 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns", "rank"), SHAPES)
def test_the_spectrum_of_a_pair_is_that_of_its_product(rows, columns, rank):
    given = pair(rows, columns, rank, scale=-0.5)
    _, values = truncated(given, at_most(1))
    expected = torch.linalg.svdvals(product(given))[: len(values)]
    assert len(values) == min(rows, columns, rank)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


def test_both_factors_share_each_singular_value():
    found, values = truncated(pair(24, 16, 5), at_most(5))
    torch.testing.assert_close(found.up_OR.norm(dim=0).square(), values.float())
    torch.testing.assert_close(found.down_RI.norm(dim=1).square(), values.float())


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (9 / 14, 1), (0.65, 2), (13 / 14, 2), (0.95, 3), (1.0, 3)])
def test_an_energy_takes_the_fewest_values_whose_squares_hold_it(energy, rank):
    assert share(energy)(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)) == rank


def test_the_energy_kept_is_told_of_the_whole():
    assert kept(torch.tensor([3.0, 2.0, 1.0]), 2) == pytest.approx(13 / 14)


def test_no_rank_is_kept_beyond_what_the_pair_has():
    doubled = pair(24, 16, 3)
    doubled = Pair(torch.cat([doubled.down_RI] * 2), torch.cat([doubled.up_OR] * 2, dim=1))
    for choose in (at_most(6), share(1.0)):
        assert truncated(doubled, choose)[0].rank == 3


def test_an_untrained_pair_stays_a_pair_of_rank_1_that_changes_nothing():
    untrained = Pair(torch.randn(4, 16), torch.zeros(24, 4))
    found, values = truncated(untrained, share(0.9))
    assert found.rank == 1
    assert not product(found).any()
    assert kept(values, 1) == 1.0


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (16, 16)])
def test_what_is_drawn_from_a_full_change_is_the_nearest_pair(shape):
    change = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    found, values = extracted(change, at_most(4))
    torch.testing.assert_close(values, torch.linalg.svdvals(change.double()), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(product(found), nearest(change, 4), rtol=0, atol=1e-5)
    assert found.down_RI.shape == (4, shape[1])


def test_a_change_of_low_rank_is_drawn_whole_and_no_more():
    whole = pair(40, 12, 3)
    found, _ = extracted(product(whole).float(), at_most(8))
    assert found.rank == 3
    torch.testing.assert_close(product(found), product(whole), rtol=0, atol=1e-5)


def test_a_change_of_more_rows_than_are_widened_at_once_is_drawn_whole():
    whole = pair(2500, 6, 6)
    found, _ = extracted(product(whole).float(), at_most(6))
    torch.testing.assert_close(product(found), product(whole), rtol=0, atol=1e-5)
