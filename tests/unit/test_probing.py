"""What a merge is compared on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.conftest import PAIRS

from lorakit.adapters.bundle import open_target
from lorakit.adapters.manifest import write_local
from lorakit.errors import DataError
from lorakit.types import Example
from lorakit.workflows.probing import SENTENCES, _first, probes_for


def test_without_known_rows_the_shipped_sentences_are_probes(gpt2_folder):
    found = probes_for(open_target(str(gpt2_folder)))
    assert found.origin == "shipped sentences"
    assert len({example.row for example in found.examples}) == len(SENTENCES)


def test_given_rows_are_probes_and_prompts_are_no_labels(gpt2_folder, pairs_file):
    target = open_target(str(gpt2_folder))
    found = probes_for(target, str(pairs_file))
    assert found.origin == "rows of pairs.jsonl"
    first = found.examples[0]
    assert target.tokenizer.decode(first.ids[first.labels >= 0]) == PAIRS[0]["completion"] + "<|endoftext|>"


def test_a_run_is_compared_on_its_own_evaluation_rows(tmp_path, pairs_file):
    from tests.conftest import save_checkpoint, tiny_gpt2

    folder = save_checkpoint(tmp_path / "model", tiny_gpt2())
    held_out = tmp_path / "held-out.csv"
    held_out.write_text("question;x,answer\nWhere?,Here.\n", encoding="utf-8")
    recipe = {
        "model": "any",
        "data": {
            "train": str(pairs_file),
            "eval": str(held_out),
            "columns": {"prompt": "question;x", "completion": "answer"},
        },
    }
    write_local(folder, {"recipe": json.dumps({"values": recipe})})
    target = open_target(str(folder))
    (example,) = probes_for(target).examples
    assert target.tokenizer.decode(example.ids) == "Where?\nHere.<|endoftext|>"


def test_rows_that_have_gone_are_replaced_by_the_sentences(tmp_path, gpt2_folder):
    from tests.conftest import save_checkpoint, tiny_gpt2

    folder = save_checkpoint(tmp_path / "model", tiny_gpt2())
    write_local(folder, {"recipe": json.dumps({"values": {"model": "any", "data": str(tmp_path / "gone.jsonl")}})})
    found = probes_for(open_target(str(folder)))
    assert found.origin == "shipped sentences"
    (note,) = found.notes
    assert "gone.jsonl" in note


def test_rows_too_long_to_leave_room_are_refused_by_name(gpt2_folder, pairs_file, monkeypatch):
    monkeypatch.setattr("lorakit.workflows.probing._MOST_NEW", 62)
    with pytest.raises(DataError, match="fits into 2 tokens"):
        probes_for(open_target(str(gpt2_folder)), str(pairs_file))


@pytest.fixture
def heavy(gpt2_folder, monkeypatch):
    """The tiny model, taken for one that takes long for each token."""
    monkeypatch.setattr("lorakit.workflows.probing._MULTIPLIED", 0)
    monkeypatch.setattr("lorakit.workflows.probing._READ", 0)
    return open_target(str(gpt2_folder))


def test_a_large_model_is_compared_on_the_first_rows_that_have_enough_tokens(heavy, pairs_file):
    found = probes_for(heavy, str(pairs_file)).examples
    assert [example.row for example in found] == list(range(len(found)))
    assert sum(map(len, found[:-1])) < 256 <= sum(map(len, found))


def test_a_large_model_writes_fewer_tokens_after_each(heavy, gpt2_folder, monkeypatch):
    assert probes_for(heavy).new_tokens == 8
    monkeypatch.undo()
    assert probes_for(open_target(str(gpt2_folder))).new_tokens == 24


def test_rows_with_a_label_each_are_compared_however_long_they_are():
    # Of fewer labels than sixteen, what rounding costs would be a matter of chance.
    class OneLabel:
        def learned(self, example):
            return len(example.labels)

    long = [Example(np.zeros(400, np.int32), np.zeros(1, np.int32), row) for row in range(40)]
    assert [example.row for example in _first(OneLabel(), long, budget=256)] == list(range(16))
