"""Each new checkpoint learns: thirty steps on 50 kB of Korean and English, through the commands that a user types."""

from pathlib import Path

import pytest
from scripts import bilingual

import lorakit
from lorakit.recipe import load
from lorakit.workflows.creating import new

TEXT = Path(__file__).parent.parent / "data" / "bilingual.txt"


def test_the_text_is_about_50_kB_and_what_the_generator_writes():
    assert TEXT.read_text(encoding="utf-8") == bilingual.text()
    assert 45_000 < TEXT.stat().st_size < 60_000


@pytest.mark.parametrize(
    ("architecture", "rate", "nats"),
    [("bert", 3e-3, 0.8), ("gpt2", 6e-3, 0.8), ("llama", 6e-3, 1.1), ("t5", 1e-2, 1.0)],
)
def test_thirty_steps_bring_the_loss_down(architecture, rate, nats, tmp_path):
    new(architecture, TEXT, tmp_path / "new", vocab_size=800, layers=2, hidden=64, heads=4, positions=128)
    changes = {
        "model.name": str(tmp_path / "new"),
        "data.train": str(TEXT),
        "data.eval": "0.1",
        "data.max_length": "128",
        "method": "full",
        "optim.learning_rate": str(rate),
        "train.tokens_per_step": "512",
        "train.max_steps": "30",
        "train.evaluate_every": "30",
        "train.sample_answers": "0",
        "train.dropout": "0",
        # The same numbers whether or not the processor multiplies in bfloat16.
        "train.dtype": "float32",
    }
    loaded = load(None, [(key, value, "--set") for key, value in changes.items()])
    state = lorakit.train(loaded, tmp_path / "run").state
    assert state.step == 30
    assert state.first_loss - state.best_loss > nats
