"""What a merge is compared on."""

from __future__ import annotations

import json

import pytest
from tests.conftest import PAIRS

from lorakit.adapters.bundle import open_target
from lorakit.adapters.manifest import write_local
from lorakit.errors import DataError
from lorakit.workflows.probing import SENTENCES, probes_for


def test_without_known_rows_the_shipped_sentences_are_probes(gpt2_folder):
    found = probes_for(open_target(str(gpt2_folder)))
    assert found.origin == "shipped sentences"
    assert len(found.examples) == len(SENTENCES)


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


def test_rows_too_long_to_leave_room_are_refused_by_name(gpt2_folder, pairs_file):
    with pytest.raises(DataError, match="fits into 2 tokens"):
        probes_for(open_target(str(gpt2_folder)), str(pairs_file), room=62)
