"""`lorakit predict`: what goes to stdout, into files, and what is refused."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from typer.testing import CliRunner

import lorakit
from conftest import SENTENCES, tiny_tokenizer
from lorakit.cli.main import app
from lorakit.cli.predictions import CsvLines
from lorakit.data.formats import canonical, recognise
from lorakit.data.settings import DataSettings
from lorakit.data.sources import read
from lorakit.errors import LorakitError

LABELS = ("나쁨", "good", "[bold]bad\x1b[2J")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "quick", "fox", "dog", "jumps", "over", "서울", "##은"]
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def checkpoint(folder, kind: str, **config):
    """A seeded random BERT with a head, saved as transformers saves it."""
    import transformers

    torch.manual_seed(0)
    numbered = dict(enumerate(config.pop("labels", ("LABEL_0", "LABEL_1"))))
    if kind == "ForSequenceClassification" or kind == "ForTokenClassification":
        config |= {"id2label": numbered, "label2id": {label: number for number, label in numbered.items()}}
    shape = transformers.BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=16, initializer_range=0.5, **WIDTH, **config
    )
    getattr(transformers, f"Bert{kind}")(shape).eval().save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("models") / "classifier", "ForSequenceClassification", labels=LABELS)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("models") / "masked", "ForPreTraining")


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], input=stdin)


def answered(result):
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(*arguments, stdin=None):
    """Return the message of an error that the user can put right."""
    result = run(*arguments, stdin=stdin)
    assert isinstance(result.exception, LorakitError), (result.exception, result.output)
    return str(result.exception)


def softmax_of(folder, *texts) -> dict[str, float]:
    """Return the probability of each label, by transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(*texts, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return dict(zip(LABELS, model(**inputs).logits.softmax(-1)[0].tolist(), strict=True))


def test_a_label_has_the_probability_that_transformers_gives_it(classifier):
    found = json.loads(answered(run(classifier, "the quick fox", "--json")))
    expected = softmax_of(classifier, "the quick fox")
    best = max(expected, key=expected.__getitem__)
    assert found["label"] == best
    assert {one["label"]: one["probability"] for one in found["top"]} == pytest.approx(expected, abs=1e-5)


def test_a_pair_is_judged_as_transformers_frames_it(classifier):
    found = json.loads(answered(run(classifier, "the quick fox", "--pair", "서울은", "--json")))
    expected = softmax_of(classifier, "the quick fox", "서울은")
    assert {one["label"]: one["probability"] for one in found["top"]} == pytest.approx(expected, abs=1e-5)


def test_people_get_as_many_lines_as_they_ask_for_and_no_escape_sequences(classifier):
    lines = answered(run(classifier, "the quick fox", "--top", "3")).splitlines()
    assert len(lines) == 3
    assert not any("\x1b" in line for line in lines)
    assert len(answered(run(classifier, "the quick fox", "--top", "1")).splitlines()) == 1


def test_a_text_a_line_is_read_from_a_pipe_and_blank_lines_are_counted(classifier):
    result = run(classifier, "--json", stdin="the fox\n\nthe dog\r\n")
    alone = [json.loads(answered(run(classifier, text, "--json"))) for text in ("the fox", "the dog")]
    found = [json.loads(line) for line in answered(result).splitlines()]
    assert [one["label"] for one in found] == [one["label"] for one in alone]
    assert "1 blank line skipped" in result.stderr


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_piped_lines_fill_a_file_as_those_of_a_text_file_do(classifier, tmp_path, ending):
    source, of_file, of_pipe = tmp_path / "in.txt", tmp_path / f"file.{ending}", tmp_path / f"pipe.{ending}"
    source.write_text("the fox\n\n서울은\n", encoding="utf-8")
    answered(run(classifier, "--input", source, "-o", of_file))
    assert answered(run(classifier, "-o", of_pipe, stdin="the fox\n\n서울은\n")) == ""
    assert of_pipe.read_text(encoding="utf-8") == of_file.read_text(encoding="utf-8")
    assert "exists" in refused(classifier, "-o", of_pipe, stdin="the fox\n")


def test_a_csv_keeps_its_columns_and_rows_and_gets_those_of_the_prediction(classifier, tmp_path):
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id,text,label\n007,"the fox, the dog",good\n8,서울은,unknown\n', encoding="utf-8")
    answered(run(classifier, "--input", source, "-o", output))
    with output.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["id"], row["text"], row["label"]) for row in rows] == [
        ("007", "the fox, the dog", "good"),
        ("8", "서울은", "unknown"),
    ]
    expected = softmax_of(classifier, "the fox, the dog")
    assert rows[0]["predicted_label"] == max(expected, key=expected.__getitem__)
    assert float(rows[0]["predicted_probability"]) == pytest.approx(max(expected.values()), abs=1e-5)


def test_no_label_in_a_csv_of_predictions_is_read_as_no_label(tmp_path):
    source, table = tmp_path / "said.csv", CsvLines(["text"])
    several = ([], ["a", "b"])
    lines = [line for labels in several for line in table.lines({"text": "the fox"}, {"labels": labels, "top": []})]
    source.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    settings = DataSettings(train=str(source), columns={"labels": "predicted_labels"})
    rows = read(settings.train, settings).rows
    found, _ = canonical(rows, recognise(rows, settings.columns))
    assert [row.fields["labels"] for row in found] == [[], ["a", "b"]]


def test_jsonl_keeps_the_order_of_rows_of_different_length(classifier, tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = ["the", "the quick fox jumps over the dog", "서울은 quick", "fox dog fox"]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    answered(run(classifier, "--input", source, "-o", output))
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in found] == texts
    for row in found:
        best = max(softmax_of(classifier, row["text"]).values())
        assert row["prediction"]["probability"] == pytest.approx(best, abs=1e-5)


def test_a_column_of_another_name_is_named(classifier, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("body\nthe fox\n", encoding="utf-8")
    found = json.loads(answered(run(classifier, "--input", source, "--json", "--set", "data.columns.text=body")))
    assert found["body"] == "the fox"


def test_a_long_text_is_refused_and_cut_where_that_is_asked(classifier):
    text = "the quick fox jumps over " * 8
    assert "input line 1 (42 tokens)" in refused(classifier, text)
    assert json.loads(answered(run(classifier, text, "--json", "--set", "data.too_long=truncate")))["label"] in LABELS


def test_an_unreadable_row_leaves_no_file(classifier, tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "the fox"}\n{"text": ""}\n', encoding="utf-8")
    assert "in.jsonl line 2" in refused(classifier, "--input", source, "-o", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_of_an_empty_text_what_predict_can_do_is_said(classifier):
    said = refused(classifier, "")
    assert "input line 1: 'text' is empty" in said
    assert "Each row gets its prediction" in said
    assert "data.broken" not in said
    assert "none is skipped" in refused(classifier, "the fox", "--set", "data.broken=skip")


def test_hidden_words_are_those_of_transformers(masked):
    from transformers import AutoModelForPreTraining, AutoTokenizer

    found = json.loads(answered(run(masked, "the [MASK] jumps", "--json", "--top", "2")))
    inputs = AutoTokenizer.from_pretrained(masked)("the [MASK] jumps", return_tensors="pt")
    with torch.no_grad():
        scores = AutoModelForPreTraining.from_pretrained(masked).eval()(**inputs).prediction_logits[0, 2].softmax(-1)
    ordinary = {word: float(scores[number]) for number, word in enumerate(WORDS) if not word.startswith("[")}
    best = max(ordinary, key=ordinary.__getitem__)
    (mask,) = found["masks"]
    assert (mask["start"], mask["end"]) == (4, 10)
    assert mask["words"][0]["word"] == best.removeprefix("##")
    assert mask["words"][0]["probability"] == pytest.approx(ordinary[best], abs=1e-5)


def test_neighbours_get_a_yes_or_a_no(masked):
    assert answered(run(masked, "the fox", "--pair", "jumps over")).split()[0] == "follows"


def test_entities_lie_where_they_say(tmp_path):
    folder = checkpoint(tmp_path / "tagger", "ForTokenClassification", labels=("O", "B-LOC", "I-LOC"))
    text = "서울은  the quick\tfox"
    found = json.loads(answered(run(folder, text, "--json")))
    assert found["entities"]
    assert all(text[one["start"] : one["end"]] == one["text"] for one in found["entities"])


def test_an_answer_lies_in_its_text(tmp_path):
    folder = checkpoint(tmp_path / "reader", "ForQuestionAnswering")
    text = "the quick fox jumps"
    found = json.loads(answered(run(folder, text, "--question", "the dog", "--json")))
    spans = [one for one in found["top"] if one["answer"]]
    assert spans
    assert all(text[one["start"] : one["end"]] == one["answer"] for one in spans)
    assert "no question was given" in refused(folder, text)


def test_a_decoder_writes_what_generate_writes(gpt2_folder):
    found = json.loads(answered(run(gpt2_folder, SENTENCES[0], "--json", "--max-new-tokens", "8")))
    expected = lorakit.generate(gpt2_folder, SENTENCES[0], _settings(8))
    assert found["text"] == expected[0].text


def test_an_encoder_decoder_writes_what_generate_of_transformers_writes(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=400, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, initializer_factor=4.0,
        pad_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    found = json.loads(answered(run(tmp_path, "the lazy dog", "--json", "--max-new-tokens", "6")))
    # No tokenizer frame: the source ends with EOS.
    source = torch.tensor([[*tokenizer("the lazy dog").input_ids, 0]])
    mask = torch.ones_like(source)
    written = model.generate(input_ids=source, attention_mask=mask, max_new_tokens=6, do_sample=False)[0, 1:].tolist()
    ended = written[: written.index(0)] if 0 in written else written
    assert found["text"] == tokenizer.decode(ended)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["the fox", "--input", "x.csv"], "give one of them"),
        (["--pair", "the fox"], "need TEXT"),
        (["the fox", "--pair", "a", "--question", "b"], "give one of them"),
        (["the fox", "-o", "out.csv"], "--output takes"),
        (["--input", "missing.csv"], "missing.csv"),
        (["the fox", "--set", "optim.learning_rate=1"], "nothing is trained here"),
        (["the \udcff fox"], "half of a character pair"),
    ],
)
def test_what_cannot_be_meant_is_refused(classifier, arguments, message):
    assert message in refused(classifier, *arguments)


@pytest.mark.parametrize(
    ("kind", "option", "message"),
    [
        ("writer", "--pair", "reads no second text (--pair). Leave it out"),
        ("ForTokenClassification", "--pair", "reads no second text (--pair). Leave it out"),
        ("ForMaskedLM", "--pair", "cannot answer for a pair"),
        ("ForQuestionAnswering", "--pair", "Give --question in its place"),
        ("writer", "--question", "answers no questions. Leave out --question"),
        ("ForTokenClassification", "--question", "answers no questions. Leave out --question"),
        ("ForMaskedLM", "--question", "answers no questions. Leave out --question"),
        ("ForSequenceClassification", "--question", "answers no questions. Leave out --question"),
    ],
)
def test_a_text_that_a_model_would_pass_over_is_refused(gpt2_folder, tmp_path, kind, option, message):
    folder = gpt2_folder if kind == "writer" else checkpoint(tmp_path, kind)
    assert message in refused(folder, "the [MASK] fox", option, "the dog")


@pytest.mark.parametrize("assigned", ["rows=1", "eval=0.5", "eval_rows=1", "stream=true", "label_names=[a, b]"])
def test_a_key_of_data_that_means_nothing_to_predict_is_refused(classifier, assigned):
    name = assigned.partition("=")[0]
    assert f"predict does not read data.{name}" in refused(classifier, "the fox", "--set", f"data.{assigned}")


def test_a_length_that_a_writer_would_not_read_is_refused(gpt2_folder):
    assert "Leave data.max_length out" in refused(gpt2_folder, "the fox", "--set", "data.max_length=2")


def test_a_file_is_replaced_only_when_asked(classifier, tmp_path):
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("the fox\n", encoding="utf-8")
    output.write_text("mine", encoding="utf-8")
    assert "exists" in refused(classifier, "--input", source, "-o", output)
    answered(run(classifier, "--input", source, "-o", output, "--force"))
    assert json.loads(output.read_text(encoding="utf-8"))["prediction"]["label"] in LABELS


def test_python_gives_what_the_command_gives(classifier):
    found = lorakit.predict(classifier, ["the fox", "서울은"])
    command = [json.loads(line) for line in answered(run(classifier, "--json", stdin="the fox\n서울은\n")).splitlines()]
    assert found == command
    assert lorakit.predict(classifier, ("the fox", "the dog"))[0]["top"]
    assert lorakit.predict(classifier, {"sentence1": "the fox", "sentence2": "the dog"})[0]["top"]


def _settings(tokens: int):
    from lorakit.generation.settings import DecodingSettings

    return DecodingSettings(max_new_tokens=tokens)
