"""Threads wait awake where the machine is idle, and asleep beside others."""

from pathlib import Path

import pytest
import torch

from lorakit.fast import waiting
from runs import recipe

IDLE = "cpu  10 0 10 900 0 0 0 0 0 0\nctxt 100\nprocs_running 1\nprocs_blocked 0\n"
BUSY = IDLE.replace("procs_running 1", "procs_running 2")


class Counts:
    """Stands for the file of the kernel's counts; gives another text at each look."""

    def __init__(self, *texts):
        self.texts = iter(texts)

    def read_text(self, encoding):
        return next(self.texts)


def chosen(*texts, **environment):
    waiting.choose(environment, Counts(*texts))
    return environment


def test_on_idle_cores_threads_look_before_they_sleep():
    assert int(chosen(IDLE)["GOMP_SPINCOUNT"]) > 0


def test_beside_a_process_that_works_threads_sleep():
    assert chosen(BUSY, BUSY, BUSY) == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_what_runs_at_one_look_alone_is_not_a_process_that_works():
    assert "GOMP_SPINCOUNT" in chosen(BUSY, IDLE)


def test_ten_processes_are_not_taken_for_one():
    assert "GOMP_SPINCOUNT" not in chosen(*[IDLE.replace("running 1", "running 10")] * 3)


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_stays(name):
    assert chosen(IDLE, **{name: "7"}) == {name: "7"}


def test_where_the_kernel_counts_nothing_threads_sleep(tmp_path):
    environment = {}
    waiting.choose(environment, tmp_path / "stat")
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_the_kernel_of_this_machine_is_understood():
    stat = Path("/proc/stat")
    if not stat.exists():
        pytest.skip("no Linux")
    assert any(line.split()[0] == "procs_running" for line in stat.read_text(encoding="ascii").splitlines())


@pytest.mark.parametrize(("count", "expected"), [(None, False), ("0", False), ("5000", True)])
def test_a_count_of_looks_is_what_keeps_threads_awake(monkeypatch, count, expected):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if count is not None:
        monkeypatch.setenv("GOMP_SPINCOUNT", count)
    assert waiting.awake() is expected


@pytest.mark.parametrize(("threads", "expected"), [(1, False), (2, True)])
def test_one_thread_alone_is_not_said_to_wait(monkeypatch, gpt2_folder, pairs_file, threads, expected):
    from lorakit.workflows.building import build
    from lorakit.workflows.preparing import prepare_rows

    monkeypatch.setenv("GOMP_SPINCOUNT", "5000")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    asked = recipe(gpt2_folder, pairs_file).recipe
    taken = build(asked, prepare_rows(asked), torch.device("cpu"), 1).taken
    assert ("waiting awake" in taken) is expected
