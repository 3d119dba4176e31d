"""Every recipe that is shipped trains, on a tiny checkpoint and a few rows of the kind it asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lorakit
from conftest import PAIRS, SENTENCES
from lorakit.adapters.bundle import open_target
from lorakit.generation.settings import DecodingSettings
from lorakit.recipe import load
from lorakit.workflows.creating import new

FILES = sorted((Path(lorakit.__file__).parent / "recipes").rglob("*.yaml"))
FORMS = {"lora": "lora", "freeze": "changed", "head": "changed", "full": "full", "delta": "changed"}

PLACES = [(pair["prompt"].split(" | ")[0], pair["completion"]) for pair in PAIRS]
ROWS = {
    "answers-lora": [{"question": prompt, "answer": answer} for prompt, answer in PLACES],
    "chat-lora": [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}
        for prompt, answer in PLACES[::4]
    ],
    "delta-matrices": PAIRS,
    "freeze-lower-half": PAIRS,
    "head-only": PAIRS,
    "plain-text-full": [{"text": sentence} for sentence in SENTENCES * 5],
    "quickstart": PAIRS,
    "quickstart-classify": [{"text": answer, "label": prompt[-1]} for prompt, answer in PLACES],
    "quickstart-translate": [{"source": prompt, "target": answer} for prompt, answer in PLACES],
}
"""Rows of the columns that the first line of each recipe asks for."""

MADE = {"quickstart-classify": "bert", "quickstart-translate": "t5"}
"""Recipe -> architecture that it is tried on; the others are on GPT-2."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return folders of small new checkpoints by architecture."""
    text = Path(__file__).parents[1] / "data" / "bilingual.txt"
    shape = {"vocab_size": 800, "layers": 1, "hidden": 16, "heads": 2, "positions": 64}
    root = tmp_path_factory.mktemp("made")
    return {name: new(name, text, root / name, **shape).folder for name in ("bert", "t5")}


def test_there_are_rows_for_every_shipped_recipe():
    assert len(FILES) == 9
    assert sorted(ROWS) == sorted(file.stem for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_recipe_trains_and_is_used(file, gpt2_folder, made, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS[file.stem]), encoding="utf-8")
    changes = {
        "model.name": str(made[MADE[file.stem]] if file.stem in MADE else gpt2_folder),
        "data.train": str(rows),
        "data.eval": "0.25",
        "data.max_length": "64",
        "train.max_steps": "2",
        "train.tokens_per_step": "128",
        "train.sample_answers": "0",
    }
    loaded = load(file, [(key, value, "--set") for key, value in changes.items()])
    result = lorakit.train(loaded, tmp_path / "run")
    assert result.state.step == 2
    assert open_target(str(result.folder)).form == FORMS[loaded.recipe.method.name]
    if file.stem == "quickstart-classify":
        [answer] = lorakit.predict(result.folder, "Alder lies in the north.")
        assert answer["label"] in {row["label"] for row in ROWS[file.stem]}
        return
    [completion] = lorakit.generate(result.folder, "name: Alder", DecodingSettings(max_new_tokens=1))
    assert len(completion.ids) == 1
