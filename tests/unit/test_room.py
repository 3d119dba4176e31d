"""When memory is full less is computed at once: the step is the same, and nothing is lost."""

import pytest
import torch

from conftest import tiny_gpt2
from lorakit.errors import TrainingError
from lorakit.training.events import NoteEvent
from lorakit.training.loop import fit
from lorakit.training.settings import SgdSettings
from lorakit.training.state import State
from runs import Listener, a_run, random_examples

LENGTHS = (5, 13, 2, 30, 9, 21, 17, 8)


def narrow(run, room, error=torch.OutOfMemoryError):
    """Let a run fail with more than `room` tokens at once, after half of the micro-batch's work."""
    loss_sums, tried = run.objective.loss_sums, []

    def limited(model, batch):
        tried.append(batch.tokens)
        sums = loss_sums(model, batch)
        if batch.tokens > room:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes")
        return sums

    run.objective.loss_sums = limited
    return tried


def trained(folder, room=None, error=torch.OutOfMemoryError, **settings):
    torch.manual_seed(0)
    listener = Listener()
    examples = random_examples(LENGTHS)
    # Adam would make steps of rounding where a gradient is nothing else.
    optim = SgdSettings(learning_rate=0.1)
    given = {"budget": 200, "optim": optim, "reporters": [listener], "rows_per_step": 4, "epochs": 2}
    run = a_run(folder, tiny_gpt2(), examples, **given, **settings)
    tried = narrow(run, room, error) if room else []
    state = fit(run, State())
    notes = [event.text for event in listener.events if isinstance(event, NoteEvent)]
    return run, state, tried, [note for note in notes if "memory was full" in note]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_a_run_that_outgrows_memory_ends_with_the_weights_of_one_that_does_not(tmp_path, error):
    plain, state, _, _ = trained(tmp_path / "plain")
    less, other, tried, notes = trained(tmp_path / "less", room=45, error=error)
    halved = [
        f"memory was full; from now on {most} tokens are computed at once, which changes no result"
        for most in (100, 50)
    ]
    assert notes == halved[: len(notes)]
    assert notes
    assert max(tried[-4:]) <= 45
    assert other.best_loss == pytest.approx(state.best_loss, rel=1e-6)
    for one, two in zip(plain.model.parameters(), less.model.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_a_single_row_that_does_not_fit_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(TrainingError, match=r"a single row of \d+ tokens.*data\.max_length"):
        trained(tmp_path, room=1)


def test_another_error_is_not_taken_for_full_memory(tmp_path):
    run = a_run(tmp_path, tiny_gpt2(), random_examples(LENGTHS), rows_per_step=4)

    def broken(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    run.objective.loss_sums = broken
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        fit(run, State())
