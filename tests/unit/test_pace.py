"""How long a run took is told by the clock on the wall."""

import time

from lorakit.training import loop
from lorakit.training.pace import Pace
from runs import train


def test_laps_follow_one_another_from_the_beginning(monkeypatch):
    clock = iter([10.0, 13.0, 15.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    pace = Pace(started=time.perf_counter())
    assert [pace.lap(), pace.lap()] == [3.0, 2.5]


def test_the_time_of_a_run_holds_its_evaluations(tmp_path, gpt2_folder, pairs_file, monkeypatch):
    evaluate, passed = loop.evaluate, [0.0]

    def slow(run, examples):
        passed[0] += 1000.0
        return evaluate(run, examples)

    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + passed[0])
    monkeypatch.setattr(loop, "evaluate", slow)
    found = train(tmp_path / "run", gpt2_folder, pairs_file, train__max_steps=2).state
    assert found.seconds > 1000.0 * (1 + len(found.history))
