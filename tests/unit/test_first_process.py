"""Several processes of one machine: the first one encodes the rows, the others find them."""

import threading

from lorakit.errors import DataError
from lorakit.workflows.launching import after_first


class Process:
    """One of two processes, played by a thread."""

    num_processes = 2

    def __init__(self, first, barrier):
        self.is_local_main_process, self.wait_for_everyone = first, barrier.wait


def both(work, shared=True):
    """Call `after_first` on two processes, the second one begun first; return what each came to, and the order."""
    barrier, order, ends = threading.Barrier(2, timeout=20), [], {}

    def run(first):
        def named():
            order.append(first)
            return work(first)

        try:
            ends[first] = after_first(Process(first, barrier), shared, named)
        except DataError as error:
            ends[first] = str(error)

    threads = [threading.Thread(target=run, args=(first,)) for first in (False, True)]
    for thread in threads:
        thread.start()
        thread.join(0.05)
    for thread in threads:
        thread.join()
    return ends, order


def test_the_first_process_of_a_machine_works_before_the_others():
    kept = []

    def work(first):
        found = list(kept)
        kept.append("rows")
        return found

    assert both(work) == ({True: [], False: ["rows"]}, [True, False])


def test_where_the_first_process_fails_the_others_do_not_wait_for_ever():
    def work(first):
        raise DataError(f"rows are broken, says {first}")

    ends, _ = both(work)
    assert ends == {True: "rows are broken, says True", False: "rows are broken, says False"}


def test_nobody_waits_where_nothing_is_shared():
    _, order = both(lambda first: None, shared=False)
    assert order == [False, True]
