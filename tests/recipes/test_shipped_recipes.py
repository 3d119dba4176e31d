"""Every recipe that is shipped is checked as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

import lorakit
from lorakit.recipe import load, purpose, resolved_yaml, shipped_names

FILES = sorted((Path(lorakit.__file__).parent / "recipes").rglob("*.yaml"))


def test_there_are_recipes():
    assert len(FILES) != 0


def test_every_file_is_found_by_its_name():
    assert sorted(shipped_names()) == sorted(file.stem for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_recipe_has_no_faults(file):
    assert load(file).recipe == load(file.stem).recipe


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_recipe_says_on_its_first_line_what_it_is_for(file):
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert purpose(file.stem) == first[2:]
    assert len(first) <= 120


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_recipe_brings_the_rows_that_it_names_as_shipped(file):
    data = load(file).recipe.data
    named = [rows.removeprefix("recipe:") for rows in (data.train, data.eval) if str(rows).startswith("recipe:")]
    assert [name for name in named if not (file.parent / name).is_file()] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_recipe_writes_only_what_differs_from_the_defaults(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) < 20 < len(resolved_yaml(load(file)).splitlines())
