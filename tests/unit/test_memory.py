"""Memory is counted as the system counts it, and what does not fit is computed in a way that does."""

import ctypes
import sys

import pytest
import torch

from conftest import tiny_gpt2
from lorakit.training import limits, memory, room
from lorakit.training.events import NoteEvent
from lorakit.workflows import building
from runs import Listener, train, weights

CPU = torch.device("cpu")
GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def group(root, path, **files):
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text, encoding="ascii")


def members(tmp_path, *lines):
    file = tmp_path / "cgroup"
    file.write_text("\n".join(lines), encoding="ascii")
    return file


def test_what_a_model_adds_when_it_learns_is_shared_as_far_as_it_is_cut():
    """16 bytes a weight: 4 of its own, 4 of its gradient, 8 of two moments; in ZeRO 4 more, of DeepSpeed's copy."""
    model = torch.nn.Linear(8, 8, bias=False)
    found = {cut: memory.to_come(model, cut, 4) for cut in ("", "zero-1", "zero-2", "zero-3", "fsdp2")}
    added = {"": 12, "zero-1": 4 + 4 + (8 + 4) / 4, "zero-2": 4 + 16 / 4, "zero-3": 20 / 4, "fsdp2": 16 / 4}
    assert found == {cut: 64 * each for cut, each in added.items()}


def test_the_limit_of_a_container_in_version_2_bounds_what_is_free_and_cached_files_do_not_count(tmp_path):
    group(tmp_path, "job", max="1000\n", current="700\n", stat="anon 500\ninactive_file 150\n")
    assert limits.room(members(tmp_path, "0::/job"), tmp_path) == 1000 - 700 + 150


def test_the_limit_of_a_container_in_version_1_bounds_what_is_free(tmp_path):
    files = {"limit_in_bytes": "1000", "usage_in_bytes": "700", "stat": "total_inactive_file 150\ninactive_file 1\n"}
    group(tmp_path, "memory/job", **files)
    lines = ("5:cpu,cpuacct:/job", "4:memory:/job", "0::/")
    assert limits.room(members(tmp_path, *lines), tmp_path) == 450


def test_the_tightest_of_the_groups_above_counts(tmp_path):
    group(tmp_path, "outer", max="500", current="100", stat="inactive_file 0\n")
    group(tmp_path, "outer/inner", max="max", current="100", stat="inactive_file 0\n")
    assert limits.room(members(tmp_path, "0::/outer/inner"), tmp_path) == 400


def test_a_container_whose_path_is_not_mounted_within_it_is_bounded_by_the_root(tmp_path):
    group(tmp_path, "memory", limit_in_bytes="900", usage_in_bytes="300", stat="total_inactive_file 0\n")
    assert limits.room(members(tmp_path, "4:memory:/docker/0123"), tmp_path) == 600


def test_without_control_groups_nothing_bounds_the_process(tmp_path):
    assert limits.room(tmp_path / "missing", tmp_path) is None


def test_free_memory_is_no_more_than_the_container_allows(monkeypatch):
    monkeypatch.setattr(limits, "room", lambda: 12345)
    assert memory.free_bytes(CPU) == 12345


def test_the_peak_is_that_since_the_mark():
    held = memory.mark(CPU)
    torch.ones(64, 1024, 1024)  # 268 MB, written to and let go at once
    assert memory.peak(CPU) - held == pytest.approx(268e6, rel=0.1)


def recomputed(folder, model, rows, monkeypatch, free, **settings):
    """Train with so much memory; return the run folder and the notes."""
    monkeypatch.setattr(building.memory, "free_bytes", lambda _: free)
    listener = Listener()
    result = train(folder, model, rows, reporters=[listener], train__dropout=0.1, **settings)
    notes = [event.text for event in listener.events if isinstance(event, NoteEvent)]
    return result.folder, result.prepared.built, notes


def test_where_the_longest_row_does_not_fit_blocks_are_computed_again_with_the_same_weights(
    tmp_path, monkeypatch, gpt2_folder, pairs_file
):
    settings = {"train__micro_batch_tokens": 90}
    folder, built, _ = recomputed(tmp_path / "much", gpt2_folder, pairs_file, monkeypatch, 10**12, **settings)
    again, other, _ = recomputed(tmp_path / "little", gpt2_folder, pairs_file, monkeypatch, 10**5, **settings)
    assert (built.recomputed, other.recomputed) == (False, True)
    assert memory.recomputes(other.model)
    plain = weights(folder)
    for name, tensor in weights(again).items():
        assert torch.equal(tensor, plain[name]), name


def test_blocks_are_not_computed_again_where_the_recipe_says_so(tmp_path, monkeypatch, gpt2_folder, pairs_file):
    settings = {"train__gradient_checkpointing": False, "train__micro_batch_tokens": 90}
    _, built, _ = recomputed(tmp_path / "run", gpt2_folder, pairs_file, monkeypatch, 10**5, **settings)
    assert not built.recomputed
    assert not memory.recomputes(built.model)


def test_computing_blocks_again_takes_less_memory_by_estimate():
    config = tiny_gpt2().config.to_dict()
    plain, again = (memory.per_token(config, 0, 1.0, 4, recomputed=yes) for yes in (False, True))
    # Two blocks of 17 numbers a feature; recomputed, one of them and the input of each.
    assert (plain, again) == (32 * 2 * 17 * 4, 32 * (2 + 17) * 4)


@pytest.mark.skipif(not GLIBC, reason="other C libraries have no malloc_trim")
def test_what_was_freed_below_a_block_in_use_is_handed_back():
    blocks = [torch.ones(16_000) for _ in range(2000)]
    full = memory.held(CPU)
    # The last block keeps the heap from shrinking by itself.
    del blocks[:-1]
    memory.trim()
    assert full - memory.held(CPU) > 100e6


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: device-side assert triggered", False),
    ],
)
def test_memory_that_a_gpus_libraries_lack_is_told_from_other_errors(said, full):
    assert room._is_full(RuntimeError(said)) == full
