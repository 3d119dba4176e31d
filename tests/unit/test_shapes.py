"""Sizes rounded up, so that a library keeps few kernels."""

import pytest
import torch

from lorakit.fast.shapes import GRAIN, rounded, rounded_row, rounded_up


@pytest.mark.parametrize(("size", "expected"), [(1, 64), (63, 64), (64, 64), (65, 128), (2048, 2048)])
def test_a_size_is_rounded_up_to_the_next_multiple(size, expected):
    assert GRAIN == 64
    assert rounded_up(size) == expected


def test_positions_keep_their_order_before_what_is_appended():
    positions_L = torch.arange(10, 80)
    assert torch.equal(rounded(positions_L)[:70], positions_L)
    assert rounded(positions_L)[70:].tolist() == [0] * 58


def test_a_row_gets_one_more_segment_and_the_others_stay():
    positions = torch.cat([torch.arange(30), torch.arange(40)])[None]
    inputs = {"input_ids": torch.full((1, 70), 7), "position_ids": positions}
    row = rounded_row(inputs, (30, 40))
    assert row["segment_lengths"] == {128: (30, 40, 58)}
    assert torch.equal(row["input_ids"][:, :70], inputs["input_ids"])
    assert row["position_ids"].shape == (1, 128)


def test_a_row_that_fits_is_left_alone():
    inputs = {"input_ids": torch.zeros(1, 64), "position_ids": torch.zeros(1, 64)}
    assert rounded_row(inputs, (60, 4))["segment_lengths"] == {64: (60, 4)}
