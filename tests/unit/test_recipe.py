"""A recipe is read, completed, overridden and written back without changing what it says."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lorakit.data.settings import SourceSettings
from lorakit.recipe import Recipe, check, json_schema, load, resolved_yaml, shipped_names, with_default_rate
from lorakit.recipe.loading import LoadedRecipe, leaves
from lorakit.recipe.reading import dotted, flow_value, read, scalar

SMALL = "model: tiny-gpt\ndata: rows.csv\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a recipe into an empty current folder and return its name."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str, name: str = "mine.yaml") -> str:
        Path(name).write_text(text, encoding="utf-8")
        return name

    return _write


# What each plain scalar means by the core schema of YAML 1.2 (section 10.3.2), octal and hexadecimal left out.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("no", "No", "on", "off", "yes", "y", "NO")],
        *[(word, word) for word in ("010", "0o7", "0x1F", "12:30", "1_000", "2024-01-01", "1e", "e5", ".", "=", "<<")],
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-3", -3),
        ("+3", 3),
        ("1e-4", 1e-4),
        ("2.0e-4", 2e-4),
        ("5.", 5.0),
        (".5", 0.5),
        ("-1.5E+3", -1500.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text, value):
    in_file = read(f"key: {text}", "x").values["key"] if text != "" else read("key:", "x").values["key"]
    assert (type(in_file), in_file) == (type(value), value)
    assert (type(scalar(text)), scalar(text)) == (type(value), value)


def test_quotes_make_a_text_of_a_number():
    assert read("key: '3'", "x").values == {"key": "3"}


def test_every_key_knows_its_line():
    document = read("# a comment\nmodel: a\n\ndata:\n  train:\n    - b\n    - {path: c,\n       weight: 2}\n", "x")
    assert document.places == {
        ("model",): 2,
        ("data",): 4,
        ("data", "train"): 5,
        ("data", "train", 0): 6,
        ("data", "train", 1): 7,
        ("data", "train", 1, "path"): 7,
        ("data", "train", 1, "weight"): 8,
    }


def test_a_few_anchors_are_read(write):
    recipe = load(write("model: a\ndata: {train: &rows {path: b.csv}, eval: *rows}\n")).recipe
    assert recipe.data.eval == recipe.data.train


def test_a_plain_word_is_the_name_of_its_section():
    words = {"model": "gpt2", "data": "rows.csv", "objective": "causal_lm", "method": "full", "optim": "sgd"}
    mappings = {section: {"train" if section == "data" else "name": word} for section, word in words.items()}
    assert check(words) == check(mappings)


def test_a_nameless_section_is_its_default_member():
    recipe = check({"model": "a", "data": "b", "method": {"rank": 4}, "optim": {"beta1": 0.8}})
    assert (recipe.method.name, recipe.optim.name) == ("lora", "adamw")


RATES = [("full", 5e-5), ("freeze", 1e-4), ("head", 1e-3), ("lora", 2e-4), ("delta", 5e-5)]
RATES_OF_NEW_HEADS = [("full", 2e-4), ("freeze", 3e-4), ("head", 3e-2), ("lora", 2e-3), ("delta", 2e-4)]


@pytest.mark.parametrize(("method", "rate"), RATES)
def test_the_method_gives_the_learning_rate_where_the_recipe_gives_none(method, rate):
    loaded = load(None, [("model", "a", "--model"), ("data", "b", "--data"), ("method", method, "--method")])
    assert loaded.recipe.optim.learning_rate == rate
    assert loaded.origins["optim.learning_rate"] == f"default of method {method}"
    assert check({"model": "a", "data": "b", "method": method}).learning_rate == rate


@pytest.mark.parametrize(("method", "rate"), RATES_OF_NEW_HEADS)
def test_a_head_that_starts_from_nothing_gets_a_higher_learning_rate_whoever_names_its_objective(method, rate):
    options = [("model", "a", "--model"), ("data", "b", "--data"), ("method", method, "--method")]
    named = load(None, [*options, ("objective", "sequence_classification", "--set")])
    recognised = with_default_rate(load(None, options), "sequence_classification")
    assert named.recipe.optim.learning_rate == recognised.recipe.optim.learning_rate == rate
    assert recognised.origins["optim.learning_rate"] == f"default of method {method} for sequence_classification"


def test_under_a_new_head_a_model_of_twice_the_width_gets_half_the_learning_rate():
    options = [("model", "a", "--model"), ("data", "b", "--data"), ("method", "full", "--method")]
    wide = with_default_rate(load(None, options), "sequence_classification", 768)
    assert wide.recipe.optim.learning_rate == 1e-4
    assert wide.origins["optim.learning_rate"] == "default of method full for sequence_classification at width 768"
    assert with_default_rate(load(None, options), "causal_lm", 768).recipe.optim.learning_rate == 5e-5


def test_a_learning_rate_that_somebody_named_is_no_default():
    options = [("model", "a", "--model"), ("data", "b", "--data"), ("optim.learning_rate", "2e-4", "--lr")]
    assert with_default_rate(load(None, options), "token_classification").recipe.learning_rate == 2e-4


def test_a_recipe_cannot_be_changed():
    recipe = check({"model": "a", "data": "b"})
    with pytest.raises(ValueError, match="frozen"):
        recipe.model = recipe.model  # type: ignore[misc]


def test_a_recipe_is_made_in_python_from_plain_values():
    recipe = Recipe(model="a", data={"train": "b"}, method="head")  # type: ignore[arg-type]
    assert recipe == check({"model": {"name": "a"}, "data": "b", "method": "head"})


def test_the_last_override_wins_over_the_file_and_its_origin_is_told(write):
    name = write(SMALL + "optim:\n  warmup: 0.1\n  learning_rate: 1e-4\n")
    loaded = load(name, [("optim.learning_rate", "1e-3", "--lr"), ("optim.learning_rate", "5e-3", "--set")])
    assert loaded.recipe.optim.learning_rate == 5e-3
    told = {key: loaded.origins[f"optim.{key}"] for key in ("learning_rate", "warmup", "clip", "name")}
    assert told == {"learning_rate": "--set", "warmup": "line 4", "clip": "default", "name": "default"}


def test_an_override_of_one_key_leaves_the_others_of_its_section(write):
    name = write("model: {name: gpt2, revision: main}\ndata: {train: a.csv, max_length: 9}\n")
    data = load(name, [("data.train", "b.csv", "--data")]).recipe.data
    assert (data.train, data.max_length) == ("b.csv", 9)


def test_an_override_in_braces_replaces_its_section(write):
    method = load(write(SMALL + "method: {name: lora, rank: 3}\n"), [("method", "{name: full}", "--set")]).recipe.method
    assert method.model_dump() == {"name": "full"}


def test_an_override_of_a_text_stays_a_text_though_it_looks_like_a_number():
    loaded = load(None, [("model", "007", "--model"), ("data", "2024", "--data"), ("model.revision", "1e5", "--set")])
    assert (loaded.recipe.model.name, loaded.recipe.data.train) == ("007", "2024")
    assert loaded.recipe.model.revision == "1e5"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("to English: ", "to English: "), (" -> ", " -> "), (" ", " "), (" 12 ", " 12 "), ("' quoted '", " quoted ")],
)
def test_a_text_given_as_an_option_keeps_its_spaces(typed, kept):
    options = [("model", "a", "--model"), ("data", "b", "--data"), ("objective.separator", typed, "--set")]
    assert load(None, options).recipe.objective.separator == kept


def test_spaces_around_the_equals_sign_are_no_part_of_an_option():
    options = [("model ", " a", "--set"), ("data.train ", " b.csv", "--set")]
    assert load(None, options).recipe.data.train == "b.csv"


@pytest.mark.parametrize("path", ["-", "[draft].csv", "a: b.csv", "*.csv", "'", "no"])
def test_a_path_given_as_an_option_is_taken_as_it_is(path):
    assert load(None, [("model", "a", "--model"), ("data.train", path, "--data")]).recipe.data.train == path


def test_an_override_takes_lists_and_shares():
    rows = "[b.csv, {path: c.csv, weight: 2}]"
    options = [("model", "a", "--model"), ("data.train", rows, "--set"), ("data.eval", "0.2", "--set")]
    data = load(None, options).recipe.data
    assert data.eval == 0.2
    assert data.train == ["b.csv", SourceSettings(path="c.csv", weight=2.0)]


def test_an_override_can_empty_a_value(write):
    name = write("model: {name: a, revision: main}\ndata: b\n")
    assert load(name, [("model.revision", "null", "--set")]).recipe.model.revision is None


ODD_TEXTS = [
    *("no", "010", "1e-4", "12:30", "1", "true", "-", "~", "", '"', "'"),
    *(" a ", "a: b", "# c", "line\nbreak", "tab\there", "é한🙂", "\x85"),
]


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_resolved_recipe_keeps_every_text(text, write):
    recipe = check({"model": "a", "data": "b", "objective": {"separator": text}, "method": {"targets": [text, "x"]}})
    loaded = LoadedRecipe(recipe, {}, "x")
    assert load(write(resolved_yaml(loaded))).recipe.objective == recipe.objective
    assert load("mine.yaml").recipe.method == recipe.method


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.text(st.characters(exclude_categories=("Cs",)))
        | st.integers()
        | st.floats(allow_nan=False)
        | st.booleans()
        | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    )
)
def test_what_is_written_on_one_line_reads_the_same(value):
    from lorakit.recipe.writing import _flow

    line = _flow(value)
    assert "\n" not in line
    assert _typed(read(f"key: {line}", "x").values["key"]) == _typed(value)


def _typed(value):
    """`value` with its types, because 1 equals 1.0 and True."""
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    return [_typed(inner) for inner in value] if isinstance(value, list) else (type(value), value)


@pytest.mark.parametrize("name", shipped_names())
def test_a_resolved_recipe_loads_again_to_an_equal_one(name, write):
    loaded = load(
        name, [("optim.clip", ".inf", "--set"), ("data.columns", "{prompt: 'a b', completion: '1'}", "--set")]
    )
    assert load(write(resolved_yaml(loaded))).recipe == loaded.recipe


def test_a_resolved_recipe_says_where_every_value_came_from(write):
    loaded = load(write(SMALL + "method: {rank: 4}\n"), [("train.seed", "5", "--seed")])
    text = resolved_yaml(loaded)
    comments = {line.split(":")[0].strip(): line.partition("# ")[2] for line in text.splitlines()[1:]}
    assert comments["rank"] == "line 3"
    assert comments["seed"] == "--seed"
    assert comments["learning_rate"] == "default of method lora"
    values = [line for line in text.splitlines()[1:] if not line.rstrip().endswith(":")]
    assert all("  # " in line for line in values)
    assert len({line.index("  # ") for line in values}) == 1


def test_any_yaml_reader_reads_a_resolved_recipe_alike():
    loaded = load("quickstart", [("data.columns.prompt", "no", "--set")])
    ordinary = yaml.safe_load(resolved_yaml(loaded))
    assert ordinary == loaded.recipe.model_dump()


@pytest.mark.parametrize("path", ["/home/me/secret/x", "../secret/x", "~/secret/x", r"C:\secret\x", "a/secret/x/"])
def test_a_shared_recipe_holds_no_folder_of_this_computer(path, write):
    values = {"model": path, "data": {"train": [path, {"path": path, "weight": 2.0}], "eval": path}}
    loaded = LoadedRecipe(check(values), {}, f"{path}.yaml")
    shared = resolved_yaml(loaded, shared=True)
    assert "secret" not in shared
    recipe = load(write(shared)).recipe
    assert recipe.model.name == recipe.data.eval == recipe.data.train[0] == recipe.data.train[1].path == "x"


@pytest.mark.parametrize("name", ["gpt2", "org/name", "builtin:tiny-gpt"])
@pytest.mark.parametrize("rows", ["hf://org/rows", "recipe:rows.jsonl", "-"])
def test_a_shared_recipe_keeps_names_that_are_no_paths(name, rows, write):
    loaded = LoadedRecipe(check({"model": name, "data": {"train": rows, "eval": {"path": rows}}}), {}, "x")
    recipe = load(write(resolved_yaml(loaded, shared=True))).recipe
    assert (recipe.model.name, recipe.data.train, recipe.data.eval.path) == (name, rows, rows)


def test_a_model_folder_with_one_slash_is_a_path_where_it_exists(write):
    Path("runs/secret").mkdir(parents=True)
    loaded = LoadedRecipe(check({"model": "runs/secret", "data": "b"}), {}, "x")
    assert load(write(resolved_yaml(loaded, shared=True))).recipe.model.name == "secret"


def test_a_file_is_taken_before_a_shipped_recipe_of_its_name(write):
    write(SMALL, "quickstart")
    assert load("quickstart").recipe.data.train == "rows.csv"


def test_a_folder_does_not_hide_a_shipped_recipe(write):
    Path("quickstart").mkdir()
    assert load("quickstart").source == "quickstart.yaml"


def test_every_value_has_an_origin():
    loaded = load("quickstart")
    assert set(loaded.origins) == {dotted(path) for path, _ in leaves(loaded.recipe)}


def test_reading_a_recipe_imports_no_torch():
    code = "import sys, lorakit.recipe as r; r.load('quickstart'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_schema_for_editors_describes_every_key_and_takes_plain_words():
    schema = json_schema()
    for section in Recipe.model_fields:
        assert schema["properties"][section]["description"]
    words = {"type": "string", "enum": ["full", "freeze", "head", "lora", "delta"]}
    assert words in schema["properties"]["method"]["anyOf"]
    keys = [pair for part in schema["$defs"].values() for pair in part["properties"].items()]
    assert len(keys) > 40
    assert [key for key, value in keys if "description" not in value and key != "name"] == []


def test_flow_values_that_are_no_yaml_stay_texts():
    assert flow_value("[a") == "[a"
    assert flow_value("{a: b}") == {"a": "b"}
