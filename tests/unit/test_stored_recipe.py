"""The recipe in local.json: rows are found from any folder, and the recipe given again is known again."""

from __future__ import annotations

import json
import os

import pytest

from lorakit.errors import LorakitError
from lorakit.recipe import load
from lorakit.workflows.stored_recipe import as_local, recall, write


def recipe(train: object, evaluation: object = 0.1):
    """A recipe as the command line gives it."""
    given = {"model.name": "tiny-gpt", "data.train": json.dumps(train), "data.eval": json.dumps(evaluation)}
    return load(None, [(key, value, "test") for key, value in given.items()])


def stored(loaded) -> dict:
    """The section `data` as local.json has it."""
    return json.loads(as_local(loaded, {})["recipe"])["values"]["data"]


@pytest.fixture
def here(tmp_path, pairs_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    return tmp_path


def test_files_and_folders_are_stored_with_their_whole_path(here):
    data = stored(recipe(["pairs.jsonl", {"path": "rows", "weight": 2.0}], "pairs.jsonl"))
    assert data["train"][0] == data["eval"] == str(here / "pairs.jsonl")
    assert (data["train"][1]["path"], data["train"][1]["weight"]) == (str(here / "rows"), 2.0)


@pytest.mark.parametrize("name", ["-", "hf://org/rows", "recipe:quickstart-eval.jsonl", "missing.jsonl"])
def test_what_is_no_file_here_is_stored_as_it_is(here, name):
    assert stored(recipe(name))["train"] == name


@pytest.mark.parametrize("name", ["pairs.jsonl", "./rows/../pairs.jsonl", "link.jsonl", "{here}/pairs.jsonl"])
def test_another_way_to_write_the_same_path_is_the_same_recipe(here, name):
    os.symlink("pairs.jsonl", here / "link.jsonl")
    (here / "run").mkdir()
    write(recipe("pairs.jsonl"), {}, here / "run")
    recalled = recall(here / "run", here / "run", recipe(name.format(here=here)))
    assert recalled.recipe.data.train == str(here / "pairs.jsonl")


def test_another_file_is_another_recipe(here):
    (here / "run").mkdir()
    (here / "other.jsonl").write_text("")
    write(recipe("pairs.jsonl"), {}, here / "run")
    with pytest.raises(LorakitError, match=r"data\.train: .*pairs\.jsonl' then, .*other\.jsonl' now"):
        recall(here / "run", here / "run", recipe("other.jsonl"))
