"""What is advised about rows that are too long: never to raise a length that is the model's own."""

from __future__ import annotations

import json

import pytest

from every_objective import save_bert
from lorakit.errors import DataError
from lorakit.workflows.preparing import prepare_rows
from runs import recipe

WORDS = "the quick brown fox " * 100
ROWS = {
    "causal_lm": {"prompt": WORDS, "completion": "yes"},
    "sequence_classification": {"text": WORDS, "label": "a"},
    "token_classification": {"tokens": WORDS.split(), "tags": ["O"] * 400},
    "question_answering": {"question": WORDS, "context": "a fox", "answers": [{"text": "fox", "answer_start": 2}]},
}
OTHERS = {
    "causal_lm": {"prompt": "the", "completion": "fox"},
    "sequence_classification": {"text": "the fox", "label": "b"},
    "token_classification": {"tokens": ["fox"], "tags": ["B-X"]},
    "question_answering": {"question": "the", "context": "a fox", "answers": [{"text": "fox", "answer_start": 2}]},
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("refusals") / "bert")


@pytest.mark.parametrize("name", ROWS)
def test_to_raise_the_length_is_advised_only_below_the_limit_of_the_model(tmp_path, bert, gpt2_folder, name):
    model = gpt2_folder if name == "causal_lm" else bert
    positions = json.loads((model / "config.json").read_text()).get("max_position_embeddings", 64)
    file, held = tmp_path / "rows.jsonl", tmp_path / "held.jsonl"
    file.write_text(f"{json.dumps(ROWS[name])}\n{json.dumps(OTHERS[name])}\n", encoding="utf-8")
    held.write_text(f"{json.dumps(OTHERS[name])}\n", encoding="utf-8")

    def said(max_length):
        values = {"data__max_length": max_length, "data__eval": str(held)}
        with pytest.raises(DataError, match=r"rows\.jsonl line 1") as caught:
            prepare_rows(recipe(model, file, **values).recipe)
        return str(caught.value)

    assert ". Raise data.max_length, " in said(positions - 1)
    for limit in (positions, None):
        assert "aise data.max_length" not in said(limit)
        assert f"The model reads no more than {positions} tokens: " in said(limit)
        assert "--set data.too_long=" in said(limit)
