"""States of rows in files: what is marked is there for every process, and none of it stays in memory."""

import psutil
import pytest
import torch

from lorakit.fast.states import Layout, States, lay_out

SMALL = [Layout("a.bin", (2, 3), 4, torch.float32), Layout("b.bin", (1, 5), 4, torch.bfloat16)]


def test_what_one_process_marks_another_reads_bit_for_bit(tmp_path):
    lay_out(tmp_path, SMALL)
    one, other = States(tmp_path, SMALL), States(tmp_path, SMALL)
    written = [torch.randn(3, 4), torch.randn(5, 4).bfloat16()]
    for file, states_TD in enumerate(written):
        one.of(file, 1).copy_(states_TD)
    assert not other.whole([1])
    one.mark(1)
    one.release()
    assert other.whole([1])
    assert not other.whole([0, 1])
    assert all(torch.equal(other.of(file, 1), states_TD) for file, states_TD in enumerate(written))


@pytest.mark.parametrize(
    "layouts",
    [SMALL[:1], [*SMALL[:1], Layout("b.bin", (1, 5), 4, torch.float32)], [Layout("a.bin", (2, 4), 4, torch.float32)]],
    ids=["one file less", "another dtype", "other lengths"],
)
def test_only_files_of_the_same_layout_are_gone_on_with(tmp_path, layouts):
    lay_out(tmp_path, SMALL)
    states = States(tmp_path, SMALL)
    states.mark(0)
    states.flush()
    lay_out(tmp_path, SMALL)
    assert States(tmp_path, SMALL).whole([0])
    lay_out(tmp_path, layouts)
    assert States(tmp_path, layouts).whole([0]) == (layouts == SMALL[:1])


def test_memory_does_not_grow_with_the_file(tmp_path):
    rows = [Layout("a.bin", (1024,) * 32, 1024, torch.float32)]
    lay_out(tmp_path, rows)
    states = States(tmp_path, rows)
    before = psutil.Process().memory_info().rss
    for row in range(32):
        states.of(0, row).fill_(row)
        states.release()
    assert psutil.Process().memory_info().rss - before < rows[0].bytes / 4
    assert all(bool((states.of(0, row) == row).all()) for row in range(32))
