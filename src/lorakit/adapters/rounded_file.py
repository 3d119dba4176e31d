"""adapter_rounded.safetensors: a LoRA adapter in 8 or 4 bits, restored to float32 wherever it is read.

Storage only: nothing is computed in fewer bits. PEFT looks for a file of another name, and so refuses the folder in
place of reading codes as weights. A matrix lies with its longer side last, in groups of 32 numbers along it: factors
of a pair have a rank for their shorter side, and each rank its own size. Each group has one scale. Vectors (biases,
lengths of DoRA) are few and act on whole rows; they are stored as they are.

S is the shorter side, L the longer one, G groups of N = 32 numbers, of which the last is filled with zeros.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorakit.checkpoints import streams, weights
from lorakit.checkpoints.streams import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "adapter_rounded.safetensors"

Width = Literal["int8", "int4"]

_GROUP = 32
_LARGEST = {"int8": 127, "int4": 7}
"""Codes go from minus this to this."""
_SCALES = ".scales"
_SHAPES = "lorakit.shapes"
"""Key of the header: JSON, the shapes of what is rounded by name."""


def write(file: Path, tensors: Mapping[str, Tensor], width: Width) -> None:
    """Write the tensors of an adapter, matrices rounded, all else in float32."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2:
            stored[name] = tensor.float()
            continue
        codes_SGN, scales_SG = rounded(tensor, width)
        stored[name] = _two_in_a_byte(codes_SGN) if width == "int4" else codes_SGN
        stored[name + _SCALES] = scales_SG
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items() if tensor.dim() == 2}
    infos = {name: TensorInfo(streams.dtype_name(tensor), tuple(tensor.shape)) for name, tensor in stored.items()}
    streams.write_stream(file, infos, stored.__getitem__, {_SHAPES: json.dumps(shapes)})


def infos(file: Path) -> dict[str, TensorInfo]:
    """Return what the file holds once it is restored; the header alone is read.

    Raises:
        CheckpointError: It is damaged, or its codes are not of the shapes that it names.
    """
    stored = streams.read_header(file)
    shapes = _shapes(file)
    found = {name: info for name, info in stored.items() if name.removesuffix(_SCALES) not in shapes}
    for name, shape in shapes.items():
        codes, scales = stored.get(name), stored.get(name + _SCALES)
        longer, shorter = max(shape), min(shape)
        groups = (shorter, -(-longer // _GROUP))
        widths = {("I8", (*groups, _GROUP)), ("U8", (*groups, _GROUP // 2))}
        sound = codes is not None and (codes.dtype, codes.shape) in widths
        if not sound or scales is None or (scales.dtype, scales.shape) != ("BF16", groups):
            raise streams.damaged(file, f"{name!r} is not stored as its shape {shape} asks for")
        found[name] = TensorInfo("F32", shape)
    return dict(sorted(found.items()))


def _shapes(file: Path) -> dict[str, tuple[int, int]]:
    try:
        given = json.loads(streams.read_metadata(file)[_SHAPES])
        shapes = {str(name): (rows, columns) for name, (rows, columns) in given.items()}
        if not all(type(side) is int and side > 0 for shape in shapes.values() for side in shape):
            raise ValueError("a side of a matrix is no positive number")
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise streams.damaged(file, f"its header does not tell the shapes of its matrices ({problem})") from problem
    return shapes


def tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor, restored to float32, one at a time and sorted by name; raises like `infos`."""
    places = weights.layout(file)
    for name, info in infos(file).items():
        held = places[name].read()
        if name + _SCALES in places:
            codes_SGN = held if places[name].info.dtype == "I8" else _apart(held)
            held = restored(codes_SGN, places[name + _SCALES].read(), info.shape)
        yield name, held


def rounded(matrix: Tensor, width: Width) -> tuple[Tensor, Tensor]:
    """Return the nearest multiples of a scale for each group of 32 numbers along the longer side.

    The scale is the largest absolute number of the group over the largest code, rounded to bfloat16; a number moves by
    at most half of it.

    Args:
        matrix: Shape (S, L) or (L, S), floating.
        width: ``int8``: codes from -127 to 127; ``int4``: from -7 to 7.

    Returns:
        Codes, int8, shape (S, G, N); scales, bfloat16, shape (S, G).
    """
    import torch
    from torch.nn.functional import pad

    rows, columns = matrix.shape
    lying_SL = matrix.float() if columns >= rows else matrix.float().T
    filled_SL = pad(lying_SL, (0, -lying_SL.shape[1] % _GROUP))
    numbers_SGN = filled_SL.reshape(len(filled_SL), -1, _GROUP)
    exact_SG = numbers_SGN.abs().amax(dim=2) / _LARGEST[width]
    scales_SG = exact_SG.to(torch.bfloat16)
    # A group of zeros has a scale of zero.
    divisors_SG1 = torch.where(scales_SG > 0, scales_SG, 1).float()[:, :, None]
    # Below the normal numbers a scale is rounded by more than a code has room for.
    codes_SGN = (numbers_SGN / divisors_SG1).round().clamp(-_LARGEST[width], _LARGEST[width])
    return codes_SGN.to(torch.int8), scales_SG


def restored(codes_SGN: Tensor, scales_SG: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a matrix of `shape` in float32: what `rounded` was given, but for the rounding."""
    lying_SL = (codes_SGN.float() * scales_SG.float()[:, :, None]).flatten(1)[:, : max(shape)]
    return lying_SL if shape[1] >= shape[0] else lying_SL.T.contiguous()


def _two_in_a_byte(codes_SGN: Tensor) -> Tensor:
    """Return pairs of codes from -8 to 7 as bytes, uint8, shape (S, G, N / 2): the first in the low four bits."""
    import torch

    halves_SGN = codes_SGN.to(torch.uint8) & 15
    return halves_SGN[..., ::2] | (halves_SGN[..., 1::2] << 4)


def _apart(pairs: Tensor) -> Tensor:
    """Return the codes that `_two_in_a_byte` put together, int8."""
    import torch

    halves_SGN = torch.stack([pairs & 15, pairs >> 4], dim=-1).flatten(2).to(torch.int8)
    # Four bits count from -8: what is above 7 stands for a negative code.
    return torch.where(halves_SGN > 7, halves_SGN - 16, halves_SGN)
