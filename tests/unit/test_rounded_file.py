"""Adapters in 8 and 4 bits: how far a number may move, what a file weighs, and what one that lies is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lorakit.adapters import rounded_file
from lorakit.adapters.rounded_file import rounded
from lorakit.checkpoints import streams
from lorakit.errors import CheckpointError

LARGEST = {"int8": 127, "int4": 7}
SHAPES = [(8, 96), (96, 8), (3, 50), (50, 3), (1, 40), (33, 33)]
"""The shorter side first, last, none; sides that groups of 32 divide and do not."""


def matrix(shape: tuple[int, int]) -> torch.Tensor:
    draw = torch.Generator().manual_seed(shape[0])
    # Ranks of very different size, and a group of zeros.
    found = torch.randn(shape, generator=draw) * torch.logspace(-9, 3, shape[0])[:, None]
    found[:1, :32] = 0
    return found


def written(tmp_path, width: str, **tensors: torch.Tensor):
    rounded_file.write(tmp_path / rounded_file.WEIGHTS, tensors, width)
    return tmp_path / rounded_file.WEIGHTS


def groups_of(values: torch.Tensor) -> list[np.ndarray]:
    """The groups by their definition: 32 numbers along the longer side, one row of it after another."""
    lying = values.double().numpy()
    lying = lying if lying.shape[1] >= lying.shape[0] else lying.T
    return [row[first : first + 32] for row in lying for first in range(0, len(row), 32)]


@pytest.mark.parametrize("width", LARGEST)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_number_moves_by_more_than_half_a_step_of_its_group(tmp_path, shape, width):
    given = matrix(shape)
    found = dict(rounded_file.tensors(written(tmp_path, width, one=given)))["one"]
    assert (found.dtype, found.shape) == (torch.float32, given.shape)
    for before, after in zip(groups_of(given), groups_of(found), strict=True):
        # bfloat16 has 8 bits, so that a scale is rounded by at most 2^-9 of itself.
        step = np.abs(before).max() / LARGEST[width] * (1 + 2**-9)
        assert np.abs(before - after).max() <= step / 2 * (1 + 1e-6)


@pytest.mark.parametrize("width", LARGEST)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_restored_is_code_times_scale_as_numpy_reads_the_file(tmp_path, shape, width):
    file = written(tmp_path, width, one=matrix(shape))
    with safe_open(file, "pt") as stored:
        codes, scales = stored.get_tensor("one").numpy(), stored.get_tensor("one.scales").float().numpy()
    if width == "int4":
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], 32).astype(np.int8)
        codes = np.where(codes > 7, codes - 16, codes)
    assert abs(codes).max() == LARGEST[width]
    lying = (codes.astype(np.float32) * scales[:, :, None]).reshape(len(codes), -1)[:, : max(shape)]
    expected = lying if shape[1] >= shape[0] else lying.T
    np.testing.assert_array_equal(dict(rounded_file.tensors(file))["one"].numpy(), expected)


@pytest.mark.parametrize(("width", "bytes_of_a_group"), [("int8", 32 + 2), ("int4", 16 + 2)])
def test_a_file_weighs_what_its_groups_do(tmp_path, width, bytes_of_a_group):
    shapes = {"down": (8, 96), "up": (100, 8)}
    file = written(tmp_path, width, **{name: torch.ones(shape) for name, shape in shapes.items()}, bias=torch.ones(5))
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    groups = 8 * 3 + 8 * 4
    assert file.stat().st_size - header == groups * bytes_of_a_group + 5 * 4
    assert {name: info.shape for name, info in rounded_file.infos(file).items()} == {**shapes, "bias": (5,)}


def test_vectors_and_groups_of_zeros_come_back_bit_for_bit(tmp_path):
    lengths = torch.randn(7, generator=torch.Generator().manual_seed(0))
    found = dict(rounded_file.tensors(written(tmp_path, "int4", lengths=lengths, zeros=torch.zeros(4, 40))))
    assert torch.equal(found["lengths"], lengths)
    assert torch.equal(found["zeros"], torch.zeros(4, 40))


def test_groups_lie_along_the_longer_side_so_that_ranks_keep_their_own_size():
    """A rank a million times smaller than the other would be rounded to nothing in one group with it."""
    ranks = torch.tensor([[1e3], [1e-3]]) * torch.linspace(1, 2, 64)
    for given in (ranks, ranks.T):
        codes, scales = rounded(given, "int4")
        assert codes.shape == (2, 2, 32)
        assert (codes != 0).all()
        assert scales[0, 0] / scales[1, 0] > 1e5


@pytest.mark.parametrize(
    "shapes",
    [
        None,
        "[",
        "[]",
        '{"one": [8]}',
        '{"one": [8, -1]}',
        '{"one": [8, 1000000]}',
        '{"one": [8, 96.0]}',
        '{"two": [8, 96]}',
    ],
)
def test_a_header_that_tells_other_shapes_is_refused(tmp_path, shapes):
    file = written(tmp_path, "int8", one=torch.ones(8, 96))
    held = {name: place.read() for name, place in rounded_file.weights.layout(file).items()}
    infos = {name: streams.TensorInfo(streams.dtype_name(held[name]), tuple(held[name].shape)) for name in held}
    streams.write_stream(file, infos, held.__getitem__, {"lorakit.shapes": shapes} if shapes is not None else None)
    with pytest.raises(CheckpointError, match=r"adapter_rounded\.safetensors is damaged"):
        rounded_file.infos(file)


def test_the_header_tells_shapes_as_json(tmp_path):
    file = written(tmp_path, "int8", one=torch.ones(8, 96))
    assert json.loads(streams.read_metadata(file)["lorakit.shapes"]) == {"one": [8, 96]}


@pytest.mark.parametrize("width", LARGEST)
def test_numbers_so_small_that_their_scale_is_coarse_keep_their_sign(width):
    tiny = torch.linspace(-1.63e-38, 1.63e-38, 64)[None]
    codes, scales = rounded(tiny, width)
    found = rounded_file.restored(codes, scales, (1, 64))
    assert (found * tiny >= 0).all()
    assert (found - tiny).abs().max() < 1e-38


@pytest.mark.parametrize(
    "changed",
    [
        {"one": torch.ones(8, 3, 16, dtype=torch.int8)},
        {"one": torch.ones(8, 3, 32)},
        {"one.scales": torch.ones(8, 2, dtype=torch.bfloat16)},
        {"one.scales": torch.ones(8, 3)},
    ],
)
def test_codes_and_scales_that_are_not_of_the_shape_that_is_told_are_refused(tmp_path, changed):
    codes, scales = rounded(torch.ones(8, 96), "int8")
    held = {"one": codes, "one.scales": scales, **changed}
    save_file(held, tmp_path / rounded_file.WEIGHTS, {"lorakit.shapes": '{"one": [8, 96]}'})
    with pytest.raises(CheckpointError, match="not stored as its shape"):
        rounded_file.infos(tmp_path / rounded_file.WEIGHTS)
