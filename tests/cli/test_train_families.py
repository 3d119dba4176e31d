"""`lorakit train` on encoders and encoder-decoders: what it says, and that the commands after it take the run."""

from __future__ import annotations

import csv
import json
import re
import shlex

import pytest
from typer.testing import CliRunner

from conftest import PAIRS
from every_objective import ROWS, TEXTS, Workshop
from lorakit.cli.main import app
from lorakit.errors import LorakitError

SMALL = (
    "--device",
    "cpu",
    "--dtype",
    "float32",
    "--epochs",
    "1",
    "--set",
    "train.sample_answers=0",
    "--method",
    "lora",
)
OF = {
    "labels": ("bert", "labels.csv"),
    "pairs": ("bert", "pairs.csv"),
    "hidden words": ("bert", "texts.txt"),
    "spans": ("t5", "texts.txt"),
    "tags": ("bert", "tagged.jsonl"),
    "answers": ("bert", "squad.json"),
}
"""Model type and file of each run."""


def run(*words, stdin=None):
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def done(result):
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 0, result.stderr
    return result


def fault(result) -> str:
    assert isinstance(result.exception, LorakitError), (result.exception, result.stderr)
    return str(result.exception)


def plain(text: str) -> str:
    return " ".join(text.split())


def write_table(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints, and files as people have them."""
    folder = tmp_path_factory.mktemp("families")
    Workshop.filled(folder)
    labelled = [(row["text"], row["label"]) for row in ROWS["labelled"]]
    write_table(folder / "labels.csv", ("text", "label"), labelled)
    pairs = [(text, other, label) for (text, label), other in zip(labelled, reversed(TEXTS), strict=True)]
    write_table(folder / "pairs.csv", ("text", "text_pair", "label"), pairs)
    (folder / "texts.txt").write_text("\n\n".join(row["text"] for row in ROWS["texts"]), encoding="utf-8")
    asked = [
        {
            "context": row["context"],
            "qas": [{"id": str(number), "question": row["question"], "answers": row["answers"]}],
        }
        for number, row in enumerate(ROWS["questions"])
    ]
    squad = {"version": "1.1", "data": [{"title": "fox", "paragraphs": asked}]}
    (folder / "squad.json").write_text(json.dumps(squad, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """Short names on the screen, so that no line is wrapped."""
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def trained(folder):
    """What the command said, by name of the run, each run when it is first asked for."""
    said = {}

    def _trained(name):
        if name not in said:
            model, data = OF[name]
            words = ("train", "--model", model, "--data", data, "-o", name.replace(" ", "-"), *SMALL)
            more = ("--set", "objective.name=question_answering", "--set", "objective.max_answer=5")
            said[name] = done(run(*words, *(more if name == "answers" else ())))
        return said[name]

    return _trained


SAYS = {
    "labels": ("sequence_classification 3 labels: a, b, c", "new, as the checkpoint has none: classifier; drawn from"),
    "pairs": ("sequence_classification 3 labels: a, b, c", "new, as the checkpoint has none: classifier; drawn from"),
    "hidden words": ("masked_lm hidden words are learned (15% of the tokens", "mlm accuracy"),
    "spans": ("span_corruption spans cut out are learned (15%, 3 tokens on average)", "perplexity"),
    "tags": ("token_classification 3 tags: O, B-name, B-place", "new, as the checkpoint has none: classifier;"),
    "answers": ("question_answering where answers begin and end", "new, as the checkpoint has none: qa_outputs;"),
}


def test_where_the_untrained_weights_are_kept_the_end_says_how_good_they_are(here, folder):
    words = ("train", "--model", "bert", "--data", "labels.csv", "-o", "kept-as-it-was", *SMALL)
    said = plain(done(run(*words, "--set", "optim.learning_rate=1e-30")).stderr)
    assert re.search(r"\(step 0 kept\) · accuracy \d+\.\d%", said)
    stored = json.loads((folder / "kept-as-it-was/manifest.json").read_text(encoding="utf-8"))["metrics"]
    before = json.loads((folder / "kept-as-it-was/metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert stored["accuracy"] == before["accuracy"]


@pytest.mark.parametrize("name", OF)
def test_the_screen_names_objective_labels_and_a_new_head(here, trained, name):
    said = plain(trained(name).stderr)
    for part in (*SAYS[name], "reloaded and equal ✓"):
        assert part in said, (part, said)
    assert ("new, as the checkpoint has none" in said) == (name not in ("hidden words", "spans"))


@pytest.mark.parametrize("name", OF)
def test_the_next_command_works_as_it_is_printed(here, trained, name):
    (line,) = [line for line in trained(name).stderr.splitlines() if line.startswith("next")]
    words = shlex.split(line.removeprefix("next"))
    assert words.pop(0) == "lorakit"
    assert words[0] == ("generate" if name == "spans" else "predict")
    assert ("--pair" in words) == (name == "pairs")
    filled = ["The quick fox jumps." if word == "..." else word for word in words]
    # What a model of random weights writes may be empty.
    assert done(run(*filled)).stdout.strip() or name == "spans"


@pytest.mark.parametrize("name", OF)
def test_evaluate_measures_the_run_on_its_own_file(here, trained, name):
    trained(name)
    found = json.loads(done(run("evaluate", name.replace(" ", "-"), "--data", OF[name][1], "--json")).stdout)
    assert found["target"]["scores"]


@pytest.mark.parametrize("name", ["labels", "pairs", "tags", "answers"])
def test_predict_answers_a_file(here, trained, name, tmp_path):
    trained(name)
    output = tmp_path / "found.jsonl"
    data = "questions.jsonl" if name == "answers" else OF[name][1]
    done(run("predict", name, "--input", data, "-o", output))
    assert len(output.read_text("utf-8").splitlines()) == 8


def test_pairs_of_prompt_and_answer_on_an_encoder_are_an_error_that_says_what_it_learns(here, folder):
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    said = fault(run("train", "--model", "bert", "--data", "prompts.jsonl", "-o", "no", *SMALL))
    assert "prompt_completion" in said
    assert "which is of the kind encoder and learns" in said
    for format_name in ("text", "labelled", "tagged", "extractive"):
        assert format_name in said
    assert not (folder / "no").exists()


@pytest.mark.parametrize(
    ("model", "asked", "fitting"),
    [
        ("bert", "causal_lm", ("masked_lm", "sequence_classification", "token_classification", "question_answering")),
        ("t5", "masked_lm", ("span_corruption", "seq2seq_lm", "sequence_classification")),
        ("gpt2", "span_corruption", ("causal_lm", "sequence_classification")),
    ],
)
def test_an_objective_of_other_models_names_those_that_fit(here, model, asked, fitting):
    said = fault(run("train", "--model", model, "--data", "texts.txt", "-o", "no", "--set", f"objective={asked}"))
    named = said.partition("choose ")[2]
    assert asked in said
    assert asked not in named
    assert all(name in named for name in fitting)


@pytest.mark.parametrize("command", ["generate", "predict"])
def test_t5_never_computes_in_float16(here, trained, command):
    trained("spans")
    said = fault(run(command, "spans", "The fox", "--dtype", "float16"))
    assert "activations of type t5 outgrow" in said
    assert "bfloat16" in said


def test_evaluate_refuses_float16_for_t5_too(here, trained):
    trained("spans")
    said = fault(run("evaluate", "spans", "--data", "texts.txt", "--dtype", "float16"))
    assert "activations of type t5 outgrow" in said


def test_t5_is_never_stored_in_float16_by_a_merge(here, folder, trained):
    trained("spans")
    assert "activations of type t5 outgrow" in fault(run("merge", "spans", "-o", "merged-half", "--dtype", "float16"))
    assert not (folder / "merged-half").exists()


def test_after_spans_the_next_command_asks_for_a_hidden_span(here, trained):
    assert "lorakit generate spans 'One <extra_id_0> is hidden.'" in plain(trained("spans").stderr)


def test_t5_computes_in_bfloat16(here, trained):
    trained("spans")
    done(run("generate", "spans", "The fox", "--dtype", "bfloat16", "--max-new-tokens", "3"))


def test_other_types_compute_in_float16(here, trained):
    trained("labels")
    assert done(run("predict", "labels", "The fox", "--dtype", "float16")).stdout
