"""Weights as the difference to a base: the same bytes back, and nothing is used of a file that lies."""

from __future__ import annotations

import json
import zlib
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lorakit.checkpoints import differences, weights
from lorakit.checkpoints.differences import Origin
from lorakit.errors import CheckpointError

FILE, PACKED = "model.safetensors", "model.safetensors.difference"


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


BASE = {
    "model.embed.weight": numbers(40, 16),
    "model.layer.weight": numbers(24, 16, seed=1),
    "lm_head.weight": numbers(40, 16, seed=2),
    "position_ids": torch.arange(12)[None],
}
DRIFT = 1e-4
"""Of a weight, as little training changes it."""


def trained(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Other first words, three new rows, a new head, a number alone; infinities, NaN and zeros of both signs."""
    odd = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan])
    moved = {name: value + DRIFT * numbers(*value.shape, seed=3) for name, value in BASE.items() if "ids" not in name}
    moved["lm_head.weight"][0, :5] = odd
    grown = torch.cat([moved.pop("model.embed.weight"), numbers(3, 16, seed=4)])
    found = {
        "embed.weight": grown,
        "other.layer.weight": moved["model.layer.weight"],
        "lm_head.weight": moved["lm_head.weight"],
        "head.bias": numbers(5),
        "factor": torch.tensor(2.0),
        "empty": torch.zeros(0, 4),
    }
    return {name: value.to(dtype) for name, value in found.items()} | {"position_ids": BASE["position_ids"]}


@pytest.fixture
def base(tmp_path) -> Path:
    (tmp_path / "base").mkdir()
    save_file({name: value.clone() for name, value in BASE.items()}, tmp_path / "base" / FILE, {"format": "pt"})
    return tmp_path / "base"


def written(folder: Path, base: Path, tensors: dict[str, torch.Tensor]) -> tuple[Path, bytes]:
    """Return the folder of a difference, and the file that it was made from."""
    (folder / "whole").mkdir(parents=True)
    (folder / "parts").mkdir()
    file = folder / "whole" / FILE
    save_file(tensors, file, {"format": "pt", "said by": "its author"})
    differences.write(folder / "parts", (file,), Origin("local:base", None, weights.fingerprint(base)), base)
    return folder / "parts", file.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_restored_is_the_file_byte_for_byte(tmp_path, base, dtype):
    parts, expected = written(tmp_path, base, trained(dtype))
    assert {file.name for file in parts.iterdir()} == {PACKED, "difference.json"}
    differences.restore(parts, base)
    assert {file.name: file.read_bytes() for file in parts.iterdir()} == {FILE: expected}


def test_a_tensor_of_many_blocks_and_rows_longer_than_a_block_are_restored(tmp_path, base, monkeypatch):
    monkeypatch.setattr(differences, "_ELEMENTS", 10)
    parts, expected = written(tmp_path, base, trained(torch.float32))
    differences.restore(parts, base)
    assert (parts / FILE).read_bytes() == expected


def test_the_stream_is_the_header_and_the_planes_of_the_xor(tmp_path, base):
    """By hand, for one tensor of two bytes a number: all first bytes, then all second ones."""
    moved = {"model.layer.weight": (BASE["model.layer.weight"] + DRIFT).bfloat16()}
    parts, expected = written(tmp_path, base, moved)
    one, other = (
        value.view(torch.uint8).flatten() for value in (*moved.values(), BASE["model.layer.weight"].bfloat16())
    )
    xor = one ^ other
    planes = bytes(xor[::2].tolist()) + bytes(xor[1::2].tolist())
    assert zlib.decompress((parts / PACKED).read_bytes()) == expected[: -len(planes)] + planes


def test_a_base_unchanged_takes_next_to_nothing_and_the_same_bytes_each_time(tmp_path, base):
    large = {"model.embed.weight": numbers(400, 160)}
    save_file(large, base / FILE, {"format": "pt"})
    first, expected = written(tmp_path / "first", base, large)
    (tmp_path / "second").mkdir()
    whole, origin = tmp_path / "first" / "whole" / FILE, differences.read(first).base
    differences.write(tmp_path / "second", (whole,), origin, base)
    assert len((first / PACKED).read_bytes()) < len(expected) / 100
    assert (first / PACKED).read_bytes() == (tmp_path / "second" / PACKED).read_bytes()


def test_another_base_is_refused_saying_which_is_right(tmp_path, base):
    parts, _ = written(tmp_path, base, trained(torch.float32))
    save_file({name: value + 1 for name, value in BASE.items()}, base / FILE, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"a difference to local:base.*--base"):
        differences.restore(parts, base)


def forged(parts: Path, **changes: object) -> None:
    about = json.loads((parts / "difference.json").read_text("utf-8"))
    about["files"][FILE].update({key: value for key, value in changes.items() if key in ("size", "sha256")})
    about.update({key: value for key, value in changes.items() if key not in ("size", "sha256")})
    (parts / "difference.json").write_text(json.dumps(about), encoding="utf-8")


ENTRY = {"sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 10**12}, "more than a training of this base gives"),
        ({"size": 5000}, "cannot be read|does not fit|describes"),
        ({"sha256": "0" * 64}, "not what was packed"),
        ({"files": {"../evil.safetensors": ENTRY}}, "disagree on"),
        ({"files": {"hashes.json": ENTRY}}, "disagree on"),
        ({"files": {}}, "disagree on"),
        ({"base": {"identity": 3, "revision": None, "fingerprint": "sha256:" + "0" * 64}}, "no base"),
        ({"base": {"identity": "x", "revision": None, "fingerprint": "short"}}, "no base"),
        ({"base": []}, "damaged"),
        ({"format": 2}, "pip install -U"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, base, changes, words):
    parts, _ = written(tmp_path, base, trained(torch.float32))
    forged(parts, **changes)
    with pytest.raises(CheckpointError, match=words) as refused:
        differences.restore(parts, base)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "evil.safetensors").exists()


def a_bomb(expected: bytes) -> bytes:
    """A header of a tensor of 200 MB of zeros, which weighs 200 kB."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [200 << 20], "data_offsets": [0, 200 << 20]}}).encode()
    return zlib.compress(len(header).to_bytes(8, "little") + header + bytes(200 << 20), 1)


STREAMS = {
    "cut short": lambda raw, _: raw[: len(raw) // 2],
    "empty": lambda raw, _: b"",
    "longer than it says": lambda raw, _: raw + b"more",
    "with more inside": lambda raw, _: zlib.compress(zlib.decompress(raw) + b"more"),
    "no stream": lambda raw, _: b"no stream at all",
    "a header of any length": lambda raw, _: zlib.compress(b"\xff" * 8 + b"{}"),
    "a header that is none": lambda raw, _: zlib.compress((2).to_bytes(8, "little") + b"[]" + bytes(100)),
    "a bomb": lambda raw, expected: a_bomb(expected),
    "a flipped bit": lambda raw, _: zlib.compress(zlib.decompress(raw)[:-1] + b"\x55"),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_that_is_damaged_or_lies_is_refused_in_one_line(tmp_path, base, stream):
    parts, expected = written(tmp_path, base, trained(torch.float32))
    raw = (parts / PACKED).read_bytes()
    (parts / PACKED).write_bytes(STREAMS[stream](raw, expected))
    with pytest.raises(CheckpointError, match="damaged") as refused:
        differences.restore(parts, base)
    assert "\n" not in str(refused.value)
    assert not (parts / FILE).exists() or (parts / FILE).stat().st_size <= len(expected)


def test_the_index_says_what_the_restored_file_is(tmp_path, base):
    parts, expected = written(tmp_path, base, trained(torch.float32))
    entry = differences.read(parts).files[FILE]
    assert (entry.sha256, entry.size) == (sha256(expected).hexdigest(), len(expected))
