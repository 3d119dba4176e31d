"""Every model type that the readme names does what its table says."""

from pathlib import Path

import pytest

import model_trials
from lorakit import families
from model_types import SHAPES

READMES = [Path(__file__).parents[2] / name for name in ("README.md", "README.ko.md")]


@pytest.mark.parametrize("model_type", SHAPES)
def test_every_objective_and_method_trains_stores_reloads_and_merges(tmp_path, model_type):
    """Two steps; then plain transformers or PEFT, and a merged model, give the same scores as what was trained."""
    row = model_trials.row(model_type, tmp_path)
    for readme in READMES:
        assert row in readme.read_text(encoding="utf-8").splitlines(), "run scripts/model_table.py"


def test_the_table_of_the_readme_names_every_type_once():
    assert list(SHAPES) == [family.model_type for family in families.listed()]
    for readme in READMES:
        lines = readme.read_text(encoding="utf-8").splitlines()
        first = lines.index(model_trials.HEADING[0])
        assert [line.split("|")[1].strip() for line in lines[first + 2 : first + 2 + len(SHAPES)]] == list(SHAPES)
