"""Every fault of a recipe is told, together, with its line, its path and what is accepted; never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorakit.errors import RecipeError
from lorakit.recipe import check, load
from lorakit.recipe.elsewhere import FOREIGN
from lorakit.recipe.schema import places_of

GOOD = "model: tiny-gpt\ndata: rows.csv\n"


def test_all_faults_are_told_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ticket.yaml").write_text(
        "model: tiny-gpt\ndata:\n  train: a.csv\nmethod:\n  name: lora\n  rnk: 8\n"
        'train:\n  seed: 1\n  epochs: "three"\noptim:\n  momentum: 0.9\n'
    )
    with pytest.raises(RecipeError) as caught:
        load("ticket.yaml")
    assert str(caught.value) == (
        "ticket.yaml has 3 faults:\n"
        "  line 6   method.rnk      unknown. Did you mean 'rank'?\n"
        '  line 9   train.epochs    is "three"; must be a whole number from 1.\n'
        "  line 11  optim.momentum  is not read by optimizer 'adamw'. Remove it, or choose optimizer 'sgd'."
    )


@pytest.mark.parametrize(
    ("line", "where", "problem"),
    [
        ("train: {epochs: 3.0}", "train.epochs", "is 3.0; must be a whole number from 1."),
        ("method: {rank_pattern: {c_fc: 0}}", "method.rank_pattern.c_fc", "is 0; must be a whole number from 1."),
        ("method: {rank_pattern: 4}", "method.rank_pattern", "is 4; must be a mapping of names to whole numbers."),
        ("train: {epochs: 0}", "train.epochs", "is 0; must be a whole number from 1."),
        ("train: {epochs: true}", "train.epochs", "is true; must be a whole number from 1."),
        ("train: {epochs: }", "train.epochs", "is empty; must be a whole number from 1."),
        ('train: {epochs: "3"}', "train.epochs", 'is "3"; must be a whole number from 1. Take the quotes away.'),
        ("train: {epochs: 010}", "train.epochs", 'is "010"; must be a whole number from 1.'),
        ("train: {epochs: 12:30}", "train.epochs", 'is "12:30"; must be a whole number from 1.'),
        ("train: {seed: -1}", "train.seed", "is -1; must be a whole number from 0 and below 4,294,967,296."),
        ("train: {dropout: 1}", "train.dropout", "is 1; must be a number from 0 and below 1."),
        ("train: {device: gpu}", "train.device", "is \"gpu\"; must be auto, cpu, cuda or mps. Did you mean 'cpu'?"),
        ("train: {trackers: wandb}", "train.trackers", "For one, write [wandb]."),
        ("train: fast", "train", 'is "fast"; must be a mapping of its settings.'),
        ("optim: {learning_rate: .inf}", "optim.learning_rate", "is .inf; must be a number above 0. Infinity"),
        ("optim: {clip: .nan}", "optim.clip", "is .nan; must be a number above 0."),
        ("optim: adamq", "optim.name", "is \"adamq\"; must be adamw, sgd or adafactor. Did you mean 'adamw'?"),
        ("method: {dora: no}", "method.dora", 'is "no"; must be true or false.'),
        ("method: {targets: c_attn}", "method.targets", "must be all-linear or a list. For one, write [c_attn]."),
        ("method: 3", "method.name", "is 3; must be full, freeze, head, lora or delta."),
        ("method: [lora]", "method", "is a list; must be full, freeze, head, lora, delta or a mapping of its sett"),
        ("method:", "method", "Leave it out for the defaults."),
        ("objective: sft", "objective.name", 'is "sft"; must be causal_lm, masked_lm, span_corruption, '),
    ],
)
def test_a_wrong_value_is_told_with_what_is_accepted(line, where, problem, only):
    found = only(GOOD + line + "\n")
    assert found[:2] == (3, where)
    assert problem in found[2]


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("model: 123\ndata: b", "model.name", "is 123; must be a text that is not empty. Put it in quotes"),
        (
            "model: a\ndata: 5",
            "data.train",
            "is 5; must be a text, a list or a mapping of path, weight, ",
        ),
        ("model: a\ndata: {train: b, eval: 2}", "data.eval", "is 2; must be a number above 0 and below 1, a text or"),
        ("model: a\ndata: {train: {pth: b, path: c}}", "data.train.pth", "unknown. Did you mean 'path'?"),
        ("model: a\ndata: {train: [b, 3]}", "data.train.1", "is 3; must be a text or a mapping"),
        ("model: a\ndata: {train: [{path: b, weight: 0}]}", "data.train.0.weight", "is 0; must be a number above 0."),
        ("model: a\ndata: {train: b, columns: {prompt: 3}}", "data.columns.prompt", "is 3; must be a text."),
        ("data: b", "model", "is missing; name a checkpoint: `model: tiny-gpt`"),
        ("model: a", "data.train", "is missing; name the rows: `data: rows.csv`"),
        ("model: a\ndata: {train: {weight: 2}}", "data.train.path", "is missing; must be a text that is not empty."),
    ],
)
def test_model_and_data_are_told_likewise(text, where, problem, only):
    found = only(text)
    assert found[1] == where
    assert problem in found[2]


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("labels=[a", "must be a list. The bracket is not closed; write [a]."),
        ("class_weights={a: 2", "The brace is not closed; write {a: 2}."),
        ("labels=[[a", "must be a list. It begins as a list and is none: close every bracket and quote"),
    ],
)
def test_a_bracket_that_is_not_closed_is_told_as_such(given, advice):
    key, _, value = given.partition("=")
    overrides = {"model.name": "a", "data.train": "b", "objective.name": "sequence_classification"}
    with pytest.raises(RecipeError) as caught:
        load(None, [(name, text, "--set") for name, text in {**overrides, f"objective.{key}": value}.items()])
    assert advice in str(caught.value)


def test_a_wrong_value_for_class_weights_is_told_that_numbers_are_due(only):
    _, where, problem = only(f"{GOOD}objective: {{name: sequence_classification, class_weights: 3}}\n")
    assert where == "objective.class_weights"
    assert problem == "is 3; must be balanced or a mapping of names to numbers."


def test_an_empty_recipe_says_what_a_recipe_needs(faults):
    assert [where for _, where, _ in faults("# nothing yet\n")] == ["model", "data.train"]


# Keys as other trainers write them, or ours at the wrong depth, and a part of what is said of them.
MISPLACED = [
    ("num_train_epochs: 3", "write train.epochs."),
    ("per_device_train_batch_size: 3", "write train.rows_per_step,"),
    ("gradient_accumulation_steps: 3", "write train.rows_per_step,"),
    ("lora_r: 3", "write method.rank."),
    ("r: 3", "write method.rank."),
    ("lora_alpha: 3", "write method.alpha."),
    ("lora_dropout: 0", "write method.dropout."),
    ("target_modules: [a]", "write method.targets."),
    ("use_rslora: true", "write method.rslora."),
    ("use_dora: true", "write method.dora."),
    ("learning_rate: 1e-4", "write optim.learning_rate."),
    ("lr: 1e-4", "write optim.learning_rate."),
    ("warmup_ratio: 0.1", "write optim.warmup."),
    ("weight_decay: 0.1", "write optim.weight_decay."),
    ("lr_scheduler_type: cosine", "write optim.schedule."),
    ("max_grad_norm: 1.0", "write optim.clip."),
    ("max_seq_length: 9", "write data.max_length."),
    ("cutoff_len: 9", "write data.max_length."),
    ("model_name_or_path: a", "write model."),
    ("train_file: a", "write data.train."),
    ("val_set_size: 0.1", "write data.eval."),
    ("bf16: true", "write train.dtype: bfloat16."),
    ("eval_steps: 1", "write train.evaluate_every."),
    ("save_steps: 1", "write train.save_every."),
    ("early_stopping_patience: 1", "write train.patience."),
    ("output_dir: a", "on the command line: -o DIR."),
    ("report_to: wandb", "write train.trackers."),
    ("packing: true", "write speed.varlen."),
    ("load_in_4bit: true", "method.quantize_base"),
    ("rank: 3", "write method.rank."),
    ("Num-Train-Epochs: 3", "write train.epochs."),
    ("learnig_rate: 3", "Did you mean optim.learning_rate?"),
    ("num_train_epoch: 3", "write train.epochs."),
]


@pytest.mark.parametrize(("key", "right_place"), MISPLACED)
@pytest.mark.parametrize("section", ["", "train"])
def test_a_key_of_another_place_or_another_trainer_is_told_its_own(key, right_place, section, only):
    line, where, problem = only(f"{GOOD}train: {{{key}}}\n" if section else f"{GOOD}{key}\n")
    assert (line, where) == (3, f"{section}.{key}".partition(":")[0].lstrip("."))
    assert right_place in problem


@pytest.mark.parametrize(
    ("key", "right_place"),
    [
        ("seed: 1", "write train.seed."),
        ("metod: lora", "Did you mean 'method'?"),
        ("zzz: 1", "Known here: model, data, objective, method, optim, train, speed."),
    ],
)
def test_an_unknown_section_is_told_its_place(key, right_place, only):
    line, where, problem = only(f"{GOOD}{key}\n")
    assert (line, where) == (3, key.partition(":")[0])
    assert right_place in problem


def test_every_key_that_is_recommended_exists():
    known = {dotted for paths in places_of().values() for dotted in paths}
    recommended = {text.split()[1].rstrip(".:,") for text in FOREIGN.values() if text.startswith("write ")}
    assert recommended
    assert recommended <= known


def test_no_key_of_ours_is_explained_as_foreign():
    assert not set(FOREIGN) & set(places_of())


@pytest.mark.parametrize(
    ("line", "where", "problem"),
    [
        ("method: {name: full, rank: 8}", "method.rank", "by method 'full'. Remove it, or choose method 'lora'."),
        ("method: {blocks: 2}", "method.blocks", "by method 'lora'. Remove it, or choose method 'freeze'."),
        (
            "optim: {name: sgd, beta1: 0.5}",
            "optim.beta1",
            "by optimizer 'sgd'. Remove it, or choose",
        ),
        ("data: {train: a, stream_buffer: 5}", "data.stream_buffer", "without data.stream."),
    ],
)
def test_a_key_that_nothing_would_read_is_a_fault_of_its_own_kind(line, where, problem, only):
    text = f"model: a\n{line}\n" if line.startswith("data") else f"{GOOD}{line}\n"
    found = only(text)
    assert found[1] == where
    assert found[2].startswith("is not read ")
    assert problem in found[2]


def test_an_override_can_make_a_key_of_the_file_unread(only):
    found = only(GOOD + "method:\n  rank: 4\n", ("method", "full", "--method"))
    assert found == (4, "method.rank", "is not read by method 'full'. Remove it, or choose method 'lora'.")


def test_a_key_named_like_its_member_does_not_hide_the_others(faults):
    found = faults(GOOD + "method: {name: lora, lora: 3, rank: x}\n")
    assert {where for _, where, _ in found} == {"method.lora", "method.rank"}


def test_an_unknown_member_does_not_hide_unknown_keys(faults):
    found = faults(GOOD + "method: {name: loar, rank: 4, foo: 1}\n")
    assert [where for _, where, _ in found] == ["method.name", "method.foo"]


@pytest.mark.parametrize(
    ("text", "line", "where", "problem"),
    [
        (
            "train:\n  rows_per_step: 4\n  tokens_per_step: 5\n",
            5,
            "train.tokens_per_step",
            "train.rows_per_step (line 4)",
        ),
        (
            "train:\n  tokens_per_step: 4\n  rows_per_step: 5\n",
            5,
            "train.rows_per_step",
            "train.tokens_per_step (line 4)",
        ),
        ("method:\n  name: freeze\n  patterns: [a]\n  blocks: 0\n", 6, "method.blocks", "method.patterns (line 5)"),
    ],
)
def test_of_two_keys_that_exclude_each_other_the_second_is_at_fault(text, line, where, problem, only):
    found = only(GOOD + text)
    assert found[:2] == (line, where)
    assert f"cannot stand beside {problem}. Keep one of the two." in found[2]


@pytest.mark.parametrize("method", ["", "method: lora\n", "method: {rank: 4}\n"])
def test_steps_in_proportion_to_a_weight_are_refused_where_weights_start_at_zero(method, only):
    assert only(GOOD + "optim: {name: adafactor, learning_rate: 0.01}\n" + method)[1] == "optim.name"


def test_adafactor_needs_a_learning_rate_of_its_own(only):
    found = only(GOOD + "method: full\noptim: adafactor\n")
    assert found[1:] == ("optim.learning_rate", "is missing; must be a number above 0.")


def test_a_stream_needs_a_number_of_steps_and_a_file_to_evaluate_on(faults):
    found = faults("model: a\ndata:\n  train: b\n  stream: true\n  eval: 0.1\n")
    assert [(line, where) for line, where, _ in found] == [(4, "data.stream"), (5, "data.eval")]
    assert "train.max_steps" in found[0][2]


def test_a_stream_without_an_evaluation_file_is_told_so_too(only):
    assert only("model: a\ndata: {train: b, stream: true}\ntrain: {max_steps: 3}\n")[1] == "data.eval"


def test_a_complete_stream_is_accepted():
    assert check({"model": "a", "data": {"train": "b", "stream": True, "eval": "c"}, "train": {"max_steps": 3}})


def test_a_revision_does_not_move_over_to_another_model(only):
    text = "model: {name: a, revision: abc}\ndata: b\n"
    found = only(text, ("model", "other", "--model"))
    assert found[:2] == (1, "model.revision")
    assert "--model" in found[2]


def test_a_fault_of_an_option_names_the_option(only):
    found = only(GOOD, ("train.epochs", "0", "--epochs"))
    assert found == ("--epochs", "train.epochs", "is 0; must be a whole number from 1.")
