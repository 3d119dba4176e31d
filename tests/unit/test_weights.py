"""Safetensors headers and streams, fingerprints, and folders that are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conftest import tiny_llama
from lorakit.checkpoints import folders, streams, weights
from lorakit.checkpoints.folders import whole_folder, write_files
from lorakit.checkpoints.hashes import check_hashes, read_hashes
from lorakit.checkpoints.weights import Place
from lorakit.errors import CheckpointError

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(3.0, dtype=torch.float16),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.empty(0, 4),
    "한글": torch.tensor([7], dtype=torch.int64),
}


def written(file: Path, tensors=TENSORS) -> Path:
    infos = {
        name: streams.TensorInfo(streams.dtype_name(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()
    }
    streams.write_stream(file, infos, tensors.__getitem__, {"note": "x"})
    return file


def test_the_library_reads_what_the_stream_wrote(tmp_path):
    loaded = load_file(written(tmp_path / "x.safetensors"))
    assert loaded.keys() == TENSORS.keys()
    assert all(loaded[name].dtype == tensor.dtype for name, tensor in TENSORS.items())
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())


class WritesWhenWaitedFor(nullcontext):
    """In place of a thread that writes: holds a piece until somebody waits for it."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(self)

    def submit(self, write, piece):
        waiting = [piece]
        return SimpleNamespace(result=lambda: write(waiting.pop()) if waiting else None)


def test_of_large_tensors_one_is_held_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_LARGE", 0)
    monkeypatch.setattr(streams, "ThreadPoolExecutor", WritesWhenWaitedFor)
    earlier: list[weakref.ref[np.ndarray]] = []

    def produced(name: str) -> torch.Tensor:
        assert all(array() is None for array in earlier)
        array = np.full(100, int(name), dtype=np.float32)
        earlier.append(weakref.ref(array))
        return torch.from_numpy(array)

    infos = {str(number): streams.TensorInfo("F32", (100,)) for number in range(3)}
    streams.write_stream(tmp_path / "x.safetensors", infos, produced)
    assert len(earlier) == 3


@pytest.mark.parametrize("read", [Place.read, lambda place: list(place.pieces())], ids=["numbers", "bytes"])
def test_a_file_cut_short_while_it_is_read_is_named(tmp_path, read):
    file = written(tmp_path / "x.safetensors")
    place = weights.layout(file)["b"]
    os.truncate(file, place.info.end - 1)
    with pytest.raises(CheckpointError, match="is damaged: it has become shorter"):
        read(place)


def test_the_stream_tells_transformers_the_format(tmp_path):
    with safe_open(written(tmp_path / "x.safetensors"), framework="pt") as file:
        assert file.metadata() == {"format": "pt", "note": "x"}


def test_tensors_read_what_the_library_wrote(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors")
    found = dict(weights.tensors(tmp_path / "x.safetensors"))
    assert list(found) == sorted(TENSORS)
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
@pytest.mark.parametrize("block", [1, 7, 24, 1 << 20])
def test_blocks_of_a_tensor_together_are_the_tensor(tmp_path, monkeypatch, stored, block):
    monkeypatch.setattr(weights, "_BLOCK", block)
    monkeypatch.setattr(weights, "_ROWS", 1)
    save_file(TENSORS, tmp_path / "model.safetensors")
    if stored == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    for name, place in weights.layout(tmp_path).items():
        tensor = TENSORS[name]
        blocks = [place.read(rows) for rows in place.blocks()]
        parts = [tensor[:0].reshape(-1), *(block.reshape(-1) for block in blocks)] if tensor.shape else blocks
        assert torch.cat([part.reshape(-1) for part in parts]).equal(tensor.reshape(-1))
        assert b"".join(bytes(piece) for piece in place.pieces()) == bytes(streams.raw_bytes(tensor))


def test_copies_are_told_from_other_tensors_of_the_same_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_BLOCK", 8)
    monkeypatch.setattr(weights, "_ROWS", 1)
    tensor = TENSORS["b"]
    save_file(
        {"one": tensor, "copy": tensor.clone(), "other": tensor.flip(0), "long": tensor.T.contiguous()}, tmp_path / "x"
    )
    one, copy, other, long = (weights.layout(tmp_path / "x")[name] for name in ("one", "copy", "other", "long"))
    assert one.holds_the_same(copy)
    assert not one.holds_the_same(other)
    assert not one.holds_the_same(long)


def test_sharding_does_not_change_the_fingerprint(tmp_path):
    model = tiny_llama()
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="60KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert weights.fingerprint(tmp_path / "one") == weights.fingerprint(tmp_path / "many")


def test_bin_and_safetensors_of_the_same_weights_have_the_same_fingerprint(tmp_path):
    for name in ("safe", "bin"):
        (tmp_path / name).mkdir()
    save_file(TENSORS, tmp_path / "safe" / "model.safetensors")
    torch.save(TENSORS, tmp_path / "bin" / "pytorch_model.bin")
    assert weights.fingerprint(tmp_path / "safe") == weights.fingerprint(tmp_path / "bin")


@pytest.mark.parametrize(
    "change",
    [
        {"b": TENSORS["b"].reshape(3, 2)},
        {"b": TENSORS["b"] + torch.eye(2, 3) * 1e-6},
        {"a": TENSORS["a"].view(torch.float16)},
        {"c": TENSORS["b"].clone()},
    ],
    ids=["shape", "one number", "dtype", "name"],
)
def test_any_change_of_a_tensor_changes_the_fingerprint(tmp_path, change):
    save_file(TENSORS, tmp_path / "one.safetensors")
    save_file({**TENSORS, **change}, tmp_path / "two.safetensors")
    one, two = (weights.fingerprint(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one != two


def test_a_whole_folder_verifies(tmp_path):
    with whole_folder(tmp_path / "out") as aside:
        (aside / "a.txt").write_text("a")
        (aside / "deep").mkdir()
        (aside / "deep" / "b.txt").write_text("b")
    assert check_hashes(tmp_path / "out")
    assert read_hashes(tmp_path / "out").keys() == {"a.txt", "deep/b.txt"}
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("damage", ["changed", "longer", "removed"])
def test_a_damaged_file_is_named(tmp_path, damage):
    with whole_folder(tmp_path / "out") as aside:
        (aside / "a.txt").write_text("a")
    file = tmp_path / "out" / "a.txt"
    {"changed": lambda: file.write_text("b"), "longer": lambda: file.write_text("aa"), "removed": file.unlink}[damage]()
    with pytest.raises(CheckpointError, match=r"a\.txt"):
        check_hashes(tmp_path / "out")


def test_an_error_leaves_nothing_and_keeps_the_old_folder(tmp_path):
    with whole_folder(tmp_path / "out") as aside:
        (aside / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out", force=True) as aside:
        1 // (aside / "new").write_text("")
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(os.listdir(tmp_path / "out")) == ["hashes.json", "old"]


def test_force_replaces_the_folder_wholly(tmp_path):
    with whole_folder(tmp_path / "out") as aside:
        (aside / "old").write_text("old")
    with whole_folder(tmp_path / "out", force=True) as aside:
        (aside / "new").write_text("new")
    assert sorted(os.listdir(tmp_path / "out")) == ["hashes.json", "new"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_taken_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(CheckpointError, match="--force"), whole_folder(tmp_path / "out"):
        raise AssertionError("the block ran")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EXDEV, "mount point"), (errno.EROFS, "Read-only")]
)
def test_a_file_system_that_refuses_is_told_plainly_and_leaves_nothing(tmp_path, monkeypatch, number, words):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders.os, "rename", refuse)
    with pytest.raises(CheckpointError, match=words), whole_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("a")
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_fsync_still_gets_the_folder(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EINVAL, "no fsync here")

    monkeypatch.setattr(folders.os, "fsync", refuse)
    with whole_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("a")
    assert check_hashes(tmp_path / "out")


def test_write_files_leaves_other_files_of_the_folder_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("kept")
    write_files(tmp_path, lambda aside: (aside / "weights").write_text("w"))
    assert sorted(os.listdir(tmp_path)) == ["hashes.json", "metrics.jsonl", "weights"]
    assert read_hashes(tmp_path).keys() == {"weights"}


def test_write_files_that_fails_changes_nothing(tmp_path):
    write_files(tmp_path, lambda aside: (aside / "weights").write_text("first"))

    def fail(aside):
        (aside / "weights").write_text("second")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_files(tmp_path, fail)
    assert (tmp_path / "weights").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == ["hashes.json", "weights"]
    assert check_hashes(tmp_path)


WRITER = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from lorakit.checkpoints import folders

    destination, calls, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def dying(call):
        def wrapped(*arguments):
            global calls
            calls -= 1
            if calls < 0:
                os.kill(os.getpid(), int(how))
            return call(*arguments)
        return wrapped

    for name in ("fsync", "rename"):
        setattr(os, name, dying(getattr(os, name)))
    with folders.whole_folder(destination, force=True) as aside:
        (aside / "a").write_text("new")
        (aside / "b").write_text("new")
    """
)


def write_and_die(destination: Path, calls: int, how: signal.Signals) -> int:
    command = [sys.executable, "-c", WRITER, str(destination), str(calls), str(int(how))]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_killed_at_any_flush_or_rename_the_old_or_the_new_folder_is_whole(tmp_path):
    seen = set()
    for calls in range(8):
        destination = tmp_path / f"{calls}" / "out"
        with whole_folder(destination) as aside:
            (aside / "a").write_text("old")
            (aside / "b").write_text("old")
        died = write_and_die(destination, calls, signal.SIGKILL) != 0
        # The next writer sweeps what the killed one left, and fails on purpose so that only the sweeping is seen.
        with pytest.raises(ZeroDivisionError), whole_folder(destination, force=True):
            raise ZeroDivisionError
        assert check_hashes(destination)
        assert os.listdir(destination.parent) == ["out"]
        assert (destination / "a").read_text() == (destination / "b").read_text()
        seen.add((died, (destination / "a").read_text()))
    assert (True, "old") in seen
    assert (False, "new") in seen


def test_sigterm_leaves_nothing_behind(tmp_path):
    assert write_and_die(tmp_path / "out", 1, signal.SIGTERM) != 0
    assert os.listdir(tmp_path) == []


def test_hashes_are_readable_json(tmp_path):
    with whole_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("abc")
    stored = json.loads((tmp_path / "out" / "hashes.json").read_text())
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert stored["files"]["a"] == {"sha256": known, "size": 3}
