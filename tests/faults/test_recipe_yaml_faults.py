"""What is no YAML, no recipe or plain junk is refused with a message, at its line, and never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorakit.errors import LorakitError, RecipeError
from lorakit.recipe import check, load
from lorakit.recipe.reading import read

GOOD = "model: tiny-gpt\ndata: rows.csv\n"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("model: x\n\tdata: y\n", 2, "a tab cannot indent here; use spaces."),
        ("model: a: b\n", 1, "a ':' too many"),
        ("model: 'a\n", 2, "not YAML"),
        ("data: [a\nmodel: b\n", 2, "not YAML"),
        ("model: a\n---\nmodel: b\n", 2, "a second document"),
        ("model: *x\n", 1, "an alias"),
        ("- a\n", 1, "is a list; a recipe is lines of"),
        ("\nhello\n", 2, "is a text; a recipe is lines of"),
        ("model: a\n\ndata: a\x01b\n", 3, "a character that YAML does not allow"),
        ("data: &a {train: *a}\n", 1, "nested too deep"),
        ("model: a\nmodel: b\ndata: c\n", 2, "is given twice, first on line 1."),
        (GOOD + "train:\n  seed: 1\n  seed: 2\n", 5, "is given twice, first on line 4."),
        (GOOD + "? [a]\n: 3\n", 3, "a key must be a word."),
        ("data: b\nmodel: !!python/object/apply:os.system [ls]\n", 2, "the tag !!python/object/apply:os.system"),
        ("data: b\nmodel: !env HOME\n", 2, "carries the tag !env"),
        (GOOD + "<<: {a: 1}\n", 3, "unknown."),
    ],
)
def test_surprising_yaml_is_refused_at_its_line(text, line, problem, only):
    found = only(text)
    assert found[0] == line
    assert problem in found[2]


def test_broken_yaml_names_the_column(only):
    assert only("model: a: b\n")[1] == "column 9"


def test_brackets_without_end_are_refused(only):
    assert "nested too deep" in only("data: " + "[" * 3000)[2]


def test_aliases_cannot_blow_a_recipe_up(only):
    levels = "".join(f"k{level}: &k{level} [{', '.join([f'*k{level - 1}'] * 9)}]\n" for level in range(1, 9))
    assert "holds more than 5,000 values" in only(f"k0: &k0 [{', '.join('x' * 9)}]\n{levels}")[2]


def test_a_number_of_thousands_of_digits_is_a_fault_like_any_other(only):
    problem = only(f"{GOOD}train: {{epochs: {'9' * 5000}}}\n")[2]
    assert "must be a whole number from 1." in problem
    assert len(problem) < 200


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quikstart", "Did you mean 'quickstart'?"),
        ("tikets.yaml", "Did you mean 'tickets.yaml'?"),
        ("folder", "is a folder"),
        ("rows.csv", "--data rows.csv"),
        ("missing/x.yaml", "there is no recipe 'missing/x.yaml'"),
        ("a\0b", "cannot read the recipe"),
        ("x" * 5000, "cannot read the recipe"),
        ("latin.yaml", "is not UTF-8 text"),
        ("large.yaml", "is larger than"),
    ],
)
def test_what_is_no_recipe_is_told_so(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tickets.yaml").write_text(GOOD)
    Path("folder").mkdir()
    Path("latin.yaml").write_bytes("model: Müller\n".encode("latin-1"))
    Path("large.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(LorakitError) as caught:
        load(name)
    assert said in str(caught.value)


WORDS = st.sampled_from(
    ["model", "data", "train", "method", "optim", "objective", "name", "rank", "lora", "sgd", "eval", "stream", "str"]
)
SCALARS = WORDS | st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=5)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=12
)


def said(load_it) -> str:
    """Return what a recipe is refused with, or an empty text; anything but a RecipeError passes through."""
    try:
        load_it()
    except RecipeError as error:
        return str(error)
    return ""


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(WORDS, TREES, max_size=6))
def test_any_values_give_a_recipe_or_a_list_of_faults(values):
    assert "Input should" not in said(lambda: check(values))


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from(":-[]{}&*!|>'\"%@`#,? \n\t"), max_size=60))
def test_any_text_gives_a_list_of_faults(text):
    assert said(lambda: check(read(text, "x").values)) != ""


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text("model.data0[ ", max_size=12), st.text(max_size=8)), max_size=3))
def test_any_options_give_a_recipe_or_a_list_of_faults(pairs):
    assert "Input should" not in said(lambda: load("quickstart", [(key, value, "--set") for key, value in pairs]))
