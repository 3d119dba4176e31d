"""The longest micro-batch is tried before the first step, and the run is the one that would have been without."""

import os
import signal

import pytest
import torch

from conftest import tiny_gpt2
from lorakit.errors import Interrupted
from lorakit.training import memory, trial
from lorakit.training.events import NoteEvent, StepEvent
from lorakit.training.loop import fit
from lorakit.training.state import State
from runs import Listener, a_run, metrics, random_examples, train, weights

LENGTHS = (5, 13, 2, 30, 9, 21, 17, 8)


@pytest.fixture
def always(monkeypatch):
    """Try in every run, however much memory there is."""
    monkeypatch.setattr(trial, "_MARGIN", float("inf"))


def told(listener):
    return [event.text for event in listener.events if isinstance(event, NoteEvent) and "tried" in event.text]


def trained(folder, **settings):
    torch.manual_seed(0)
    listener = Listener()
    model = tiny_gpt2(resid_pdrop=0.1, embd_pdrop=0.1)
    given = {"budget": 60, "per_token": 1, "rows_per_step": 4, "epochs": 2, "reporters": [listener], **settings}
    run = a_run(folder, model, random_examples(LENGTHS), **given)
    fit(run, State())
    return run, listener


def test_a_run_with_the_trial_ends_with_the_weights_of_one_without(tmp_path, monkeypatch):
    plain, silent = trained(tmp_path / "plain")
    monkeypatch.setattr(trial, "_MARGIN", float("inf"))
    tried, listener = trained(tmp_path / "tried")
    assert told(silent) == []
    assert len(told(listener)) == 1
    for one, two in zip(plain.model.parameters(), tried.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_run_that_is_stopped_and_tries_again_ends_with_the_same_weights(
    tmp_path, monkeypatch, gpt2_folder, pairs_file
):
    settings = {"train__dropout": 0.1, "train__rows_per_step": 5, "train__micro_batch_tokens": 90}
    plain = train(tmp_path / "plain", gpt2_folder, pairs_file, **settings).folder
    monkeypatch.setattr(trial, "_MARGIN", float("inf"))

    def act(event):
        if isinstance(event, StepEvent) and event.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "tried", gpt2_folder, pairs_file, reporters=[Listener(act)], **settings)
    listener = Listener()
    resumed = train(tmp_path / "tried", resume=True, reporters=[listener]).folder
    assert len(told(listener)) == 1
    assert metrics(resumed) == metrics(plain)
    once = weights(plain)
    for name, tensor in weights(resumed).items():
        assert torch.equal(tensor, once[name]), name


def test_memory_that_runs_out_does_so_before_the_first_evaluation_and_step(tmp_path, always):
    listener = Listener()
    run = a_run(tmp_path, tiny_gpt2(), random_examples(LENGTHS), budget=30, per_token=1, reporters=[listener])
    loss_sums = run.objective.loss_sums

    def full(model, batch):
        if not memory.recomputes(model):
            raise torch.OutOfMemoryError("out of memory")
        return loss_sums(model, batch)

    run.objective.loss_sums = full
    fit(run, State())
    first = next(event for event in listener.events)
    assert isinstance(first, NoteEvent)
    assert first.text.startswith("memory was full; from now on blocks are computed again in the backward pass")


def test_the_longest_row_is_the_one_tried(tmp_path, always):
    _, listener = trained(tmp_path)
    assert told(listener)[0].startswith("tried the longest row, 30 tokens: ")


def test_a_processor_with_room_enough_takes_no_trial(tmp_path):
    run = a_run(tmp_path, tiny_gpt2(), random_examples(LENGTHS), budget=60, per_token=1)
    run.objective.loss_sums = None
    trial.try_longest(run)


def test_what_was_measured_lowers_how_much_is_computed_at_once(tmp_path, monkeypatch, always):
    monkeypatch.setattr(memory, "free_bytes", lambda _: 2000 * 50)
    monkeypatch.setattr(memory, "gradients_and_moments", lambda _: 0)
    monkeypatch.setattr(memory, "mark", lambda _: 10**6)
    monkeypatch.setattr(memory, "peak", lambda _: 10**6 + 30 * 1000)
    run = a_run(tmp_path, tiny_gpt2(), random_examples(LENGTHS), budget=60, per_token=1)
    trial.try_longest(run)
    # 1,000 bytes a token, of which half of the free memory holds 50.
    assert run.budget == 50


def test_what_the_recipe_says_is_computed_at_once_is_left_alone(tmp_path, monkeypatch, always):
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10)
    run = a_run(tmp_path, tiny_gpt2(), random_examples(LENGTHS), budget=60, per_token=1, micro_batch_tokens=60)
    trial.try_longest(run)
    assert run.budget == 60
