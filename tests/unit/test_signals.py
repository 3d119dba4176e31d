"""Signals that come close together."""

import signal
import sys

import pytest

from lorakit.training.signals import Asked, Signals


@pytest.mark.parametrize("moment", range(1, 9))
def test_one_of_several_processes_answers_one_signal_when_the_second_comes_amid_the_first(monkeypatch, moment):
    """A launcher sends it again within a millisecond: here at one of the calls and lines of the answer to the first."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    signals = Signals()
    seen = []

    def send_again(frame, event, _):
        seen.append(event)
        if len(seen) == moment:
            signal.raise_signal(signal.SIGTERM)
        return send_again

    with signals, signals.remembered():
        sys.settrace(send_again)
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            sys.settrace(None)
        with pytest.raises(Asked, match="SIGTERM"):
            signals.check()


def test_a_second_signal_leaves_one_process_at_once(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    left = []
    monkeypatch.setattr("os._exit", left.append)
    with Signals() as signals, signals.remembered():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert left == [143]
