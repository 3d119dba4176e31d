"""Rows that a target was trained on are told from others, also where its recipe took a part of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from lorakit.data import formats, sources
from lorakit.data.settings import DataSettings
from lorakit.recipe import resolved_yaml
from lorakit.workflows import learned_rows
from lorakit.workflows.preparing import prepare_rows
from runs import recipe

TEXTS = [f"the fox {number} jumps over the lazy dog" for number in range(30)]


@pytest.fixture
def said(tmp_path, gpt2_folder):
    """What is said of texts to evaluate on, of a target trained on `TEXTS` with some values of the recipe."""

    def file(name, texts):
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts), encoding="utf-8")
        return path

    def told(texts, **values):
        file("held.jsonl", ["another text"])
        loaded = recipe(gpt2_folder, file("rows.jsonl", TEXTS), **values)
        (tmp_path / "recipe.yaml").write_text(resolved_yaml(loaded, shared=True), encoding="utf-8")
        data = prepare_rows(loaded.recipe).fingerprint
        target = SimpleNamespace(manifest=SimpleNamespace(data=data), folder=tmp_path)
        settings = DataSettings(train=str(file("others.jsonl", texts)))
        rows = sources.read(settings.train, settings).rows
        format = formats.recognise(rows, {})
        return learned_rows.told(target, "it", formats.canonical(rows, format, "error")[0], format)

    return told


@pytest.mark.parametrize(
    ("values", "which"),
    [
        ({"data__eval": "held.jsonl"}, "these rows"),
        ({}, "27 of these 30 rows"),
        ({"data__eval": 0.5, "train__seed": 3}, "15 of these 30 rows"),
        ({"data__rows": 8}, "8 of these 30 rows"),
    ],
)
def test_rows_that_were_learned_are_told(said, tmp_path, monkeypatch, values, which):
    monkeypatch.chdir(tmp_path)
    (line,) = said(TEXTS, **values)
    assert line.startswith(f"it learned {which} in training: the scores say what it remembers")


@pytest.mark.parametrize("texts", [TEXTS[:-1], [*TEXTS[:-1], "another text"], ["one text"]])
def test_other_rows_are_not(said, texts):
    assert said(texts) == []
