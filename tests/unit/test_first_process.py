"""Several processes: the first one encodes the rows, the others find them or are handed them."""

import threading
from types import SimpleNamespace

import pytest

from lorakit.errors import DataError
from lorakit.workflows import launching


def each(work, processes, shared=True):
    """Call `after_first` on processes, threads here, begun as given; return what each came to, and the order.

    A process is the number of its machine and its own on it.
    """
    barrier, order, ends = threading.Barrier(len(processes), timeout=20), [], {}

    def run(machine, number):
        here = SimpleNamespace(
            num_processes=len(processes),
            is_main_process=(machine, number) == (0, 0),
            is_local_main_process=number == 0,
            wait_for_everyone=barrier.wait,
        )

        def named():
            order.append((machine, number))
            return work((machine, number))

        try:
            ends[machine, number] = launching.after_first(here, shared, named)
        except DataError as error:
            ends[machine, number] = str(error)

    threads = [threading.Thread(target=run, args=process) for process in processes]
    for thread in threads:
        thread.start()
        thread.join(0.05)
    for thread in threads:
        thread.join()
    return ends, order


def test_the_first_process_of_a_machine_works_before_the_others():
    kept = []

    def work(process):
        found = list(kept)
        kept.append("rows")
        return found

    assert each(work, [(0, 1), (0, 0)]) == ({(0, 0): [], (0, 1): ["rows"]}, [(0, 0), (0, 1)])


def test_the_first_processes_of_two_machines_work_one_after_the_other():
    _, order = each(lambda process: None, [(1, 1), (1, 0), (0, 1), (0, 0)])
    assert order[:2] == [(0, 0), (1, 0)]
    assert sorted(order[2:]) == [(0, 1), (1, 1)]


def test_where_the_first_process_fails_the_others_do_not_wait_for_ever():
    def work(process):
        raise DataError(f"rows are broken, says {process}")

    ends, _ = each(work, [(1, 0), (0, 1), (0, 0)])
    assert ends == {process: f"rows are broken, says {process}" for process in ((0, 0), (0, 1), (1, 0))}


def test_nobody_waits_where_nothing_is_shared():
    _, order = each(lambda process: None, [(0, 1), (0, 0)], shared=False)
    assert order == [(0, 1), (0, 0)]


def test_what_the_first_process_raises_is_raised_by_all(monkeypatch):
    first, second = (SimpleNamespace(num_processes=2, is_main_process=main) for main in (True, False))
    handed = []
    monkeypatch.setattr(launching, "from_first", lambda here, value: (handed.append(value), handed[0])[1])

    def fail():
        raise DataError("no rows")

    for here in (first, second):
        with pytest.raises(DataError, match="no rows"):
            launching.by_first(here, fail)
