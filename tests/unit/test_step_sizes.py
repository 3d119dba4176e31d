"""Steps that could hold more rows than there are: fewer steps come of them than were meant, so it is said."""

from __future__ import annotations

import json

import pytest

from lorakit.workflows.preparing import prepare_rows
from runs import recipe


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"train__rows_per_step": None, "train__tokens_per_step": 10**9}, "train.tokens_per_step is 1,000,000,000"),
        ({"train__rows_per_step": None}, "train.tokens_per_step is 8,192"),
        ({"train__rows_per_step": 9}, "train.rows_per_step is 9"),
        ({"train__rows_per_step": 8}, None),
    ],
)
def test_a_step_that_takes_all_rows_is_told_with_what_was_asked(tmp_path, gpt2_folder, how, said):
    rows, held = tmp_path / "rows.jsonl", tmp_path / "held.jsonl"
    rows.write_text("".join(f"{json.dumps({'text': f'the fox {number}'})}\n" for number in range(9)), encoding="utf-8")
    held.write_text('{"text": "the dog"}\n', encoding="utf-8")
    notes = prepare_rows(recipe(gpt2_folder, rows, data__eval=str(held), **how).recipe).report.notes
    told = [note for note in notes if "an epoch is one step" in note]
    assert [note.partition(": a step takes all 9 rows")[0] for note in told] == ([said] if said else [])
