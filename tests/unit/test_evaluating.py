"""`lorakit.evaluate`: numbers against transformers, counts by hand, and rows that are refused."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
import transformers
from sklearn.metrics import confusion_matrix, matthews_corrcoef

import lorakit
from conftest import PAIRS, save_checkpoint, tiny_gpt2
from encoders import encoder_folder, framing, written
from lorakit.adapters.bundle import open_target
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError
from lorakit.workflows import tasks
from lorakit.workflows.completions import Completion
from lorakit.workflows.generating import Writer
from runs import objective, reference_loss
from runs import rows as canonical
from writers import tiny_writer, unigram_tokenizer

LABELS = ("alarm", "music", "weather")
TEXTS = (
    "wake me at six",
    "play a song",
    "will it rain",
    "노래를 틀어 줘",
    "is it cold",
    "set a timer",
    "louder",
    "sun",
)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    problem = {"problem_type": "single_label_classification"}
    return encoder_folder(
        tmp_path_factory.mktemp("encoders") / "cls", "AutoModelForSequenceClassification", LABELS, **problem
    )


def test_perplexity_and_bits_per_byte_are_those_of_the_tokens_one_by_one(gpt2_folder, pairs_file):
    found = lorakit.evaluate(gpt2_folder, pairs_file).target.scores
    examples = objective("prompt_completion").encode(canonical(PAIRS))
    model = tiny_gpt2().double()
    mean, tokens = reference_loss(model, examples).item(), sum(int((one.labels >= 0).sum()) for one in examples)
    assert found["perplexity"].value == pytest.approx(math.exp(mean), rel=1e-5)
    in_bytes = sum(len(pair["completion"].encode()) for pair in PAIRS)
    assert found["bits_per_byte"].value == pytest.approx(mean * tokens / math.log(2) / in_bytes, rel=1e-5)
    assert found["perplexity"].low < found["perplexity"].value < found["perplexity"].high


def test_documents_longer_than_a_window_are_measured_whole(gpt2_folder, tmp_path):
    text = "Once upon a time there was a small model. " * 20
    file = written(tmp_path / "long.jsonl", [{"text": text}, {"text": "The lazy dog."}])
    found = lorakit.evaluate(gpt2_folder, file).target.scores
    examples = objective("text").encode(canonical([{"text": text}, {"text": "The lazy dog."}]))
    assert len(examples) > 2
    assert found["perplexity"].value == pytest.approx(math.exp(reference_loss(tiny_gpt2(), examples).item()), rel=1e-4)


def test_the_cut_into_batches_changes_no_number(gpt2_folder, pairs_file, monkeypatch):
    whole = lorakit.evaluate(gpt2_folder, pairs_file).target.scores["perplexity"].value
    monkeypatch.setattr("lorakit.workflows.measuring.tokens_at_once", lambda target: 1)
    assert lorakit.evaluate(gpt2_folder, pairs_file).target.scores["perplexity"].value == pytest.approx(whole)


def test_rows_left_out_as_too_long_are_counted_and_not_measured(gpt2_folder, tmp_path):
    file = written(tmp_path / "rows.jsonl", [*PAIRS[:3], {"prompt": "x", "completion": "far too long " * 60}])
    found = lorakit.evaluate(gpt2_folder, DataSettings(train=str(file), too_long="drop"))
    assert found.rows == 3
    assert any("1 row longer than 64 tokens: left out" in note for note in found.notes)


def test_labels_are_counted_as_transformers_gives_them(classifier, tmp_path):
    true = [LABELS[number % 3] for number in range(len(TEXTS))]
    file = written(
        tmp_path / "rows.jsonl", [{"text": text, "label": label} for text, label in zip(TEXTS, true, strict=True)]
    )
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = framing()
    with torch.no_grad():
        said = [LABELS[int(model(**tokenizer(text, return_tensors="pt")).logits.argmax())] for text in TEXTS]
    found = lorakit.evaluate(classifier, file)
    assert found.target.confusion == confusion_matrix(true, said, labels=LABELS).tolist()
    assert found.target.scores["mcc"].value == pytest.approx(matthews_corrcoef(true, said))
    assert [one.label for one in found.target.table] == list(LABELS)


def test_a_label_that_was_never_learned_is_refused_with_row_and_field(classifier, tmp_path):
    rows = [{"body": "wake me", "kind": "alarm"}, {"body": "rain", "kind": "wether"}]
    file = tmp_path / "rows.csv"
    with file.open("w", newline="") as opened:
        table = csv.DictWriter(opened, ["body", "kind"])
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(DataError, match=r"rows\.csv line 3: 'kind' is 'wether'\. Did you mean 'weather'"):
        lorakit.evaluate(classifier, file, columns={"text": "body", "label": "kind"})


@pytest.mark.parametrize(
    ("problem", "rows", "said"),
    [
        ("single_label", {"score": 2.5}, r"learned labels, and these rows have scores \(column 'score'\)"),
        ("multi_label", {"score": 2.5}, r"learned labels, and these rows have scores \(column 'score'\)"),
        ("single_label", {"labels": ["sun", "rain"]}, r"learned one label a text, and rows\.jsonl line 1 has 2\."),
        ("regression", {"label": "sun"}, r"learned scores, and these rows have labels \(rows\.jsonl line 1: 'label'"),
        (
            "regression",
            {"labels": ["sun"]},
            r"learned scores, and these rows have labels \(rows\.jsonl line 1: 'labels'",
        ),
    ],
)
def test_rows_with_another_kind_of_label_than_was_learned_are_refused_in_words_that_fit_evaluate(
    tmp_path, problem, rows, said
):
    labels = ("score",) if problem == "regression" else LABELS
    kind = "regression" if problem == "regression" else f"{problem}_classification"
    folder = encoder_folder(tmp_path / "cls", "AutoModelForSequenceClassification", labels, problem_type=kind)
    with pytest.raises(DataError, match=said) as caught:
        lorakit.evaluate(folder, written(tmp_path / "rows.jsonl", [{"text": text, **rows} for text in TEXTS]))
    assert "objective." not in str(caught.value)


def test_rows_of_another_kind_are_refused(classifier, pairs_file):
    with pytest.raises(DataError, match=r"learned sequence_classification.*labelled.*prompt_completion"):
        lorakit.evaluate(classifier, pairs_file)


def test_a_built_in_is_called_as_it_was_typed_in_errors(pairs_file):
    with pytest.raises(DataError, match=r"^tiny-bert learned masked_lm"):
        lorakit.evaluate("tiny-bert", pairs_file)


def test_of_one_document_hidden_words_alone_are_measured(tmp_path):
    folder = encoder_folder(tmp_path / "pretrained", "AutoModelForPreTraining")
    file = written(tmp_path / "rows.jsonl", [{"text": "The sun is up. The lake is wide. 한강도 넓다."}])
    found = lorakit.evaluate(folder, file)
    assert set(found.target.scores) == {"pseudo_perplexity", "mask_accuracy"}
    assert any("next sentences need two documents" in note for note in found.notes)


def test_entities_and_tags_are_measured_by_words(tmp_path):
    folder = encoder_folder(tmp_path / "ner", "AutoModelForTokenClassification", ("O", "B-LOC", "I-LOC"))
    rows = [
        {"tokens": ["in", "Seoul"], "tags": ["O", "B-LOC"]},
        {"tokens": ["한강", "is", "wide"], "tags": ["B-LOC", "O", "O"]},
    ]
    found = lorakit.evaluate(folder, written(tmp_path / "rows.jsonl", rows)).target
    assert set(found.scores) == {"entity_f1", "entity_precision", "entity_recall", "tag_accuracy"}
    assert found.table[0].support == 2
    # Five words, so the share is a multiple of a fifth.
    assert (5 * found.scores["tag_accuracy"].value) % 1 == 0


def test_tags_of_a_row_longer_than_the_model_are_measured_as_they_are_predicted(tmp_path):
    folder = encoder_folder(tmp_path / "ner", "AutoModelForTokenClassification", ("O", "B-LOC"))
    words = ["the", "wide", "river", "flows", "by", "Seoul", "and", "the", "sea"] * 12
    rows = [{"tokens": words, "tags": ["B-LOC" if word == "Seoul" else "O" for word in words]}]
    found = lorakit.evaluate(folder, written(tmp_path / "rows.jsonl", rows))
    (said,) = lorakit.predict(folder, {"tokens": words})
    right = sum(one == other for one, other in zip(said["tags"], rows[0]["tags"], strict=True))
    assert found.target.scores["tag_accuracy"].value == pytest.approx(right / len(words))
    assert not any("longer" in note or "cut" in note for note in found.notes)


def test_broken_tags_are_refused_in_rows_of_any_length(tmp_path):
    folder = encoder_folder(tmp_path / "ner", "AutoModelForTokenClassification", ("O", "B-LOC", "I-LOC"))
    rows = [{"tokens": ["by", "Seoul"] * 60, "tags": ["O", "I-LOC"] * 60}]
    with pytest.raises(DataError, match=r"inside tags follow nothing.*rows\.jsonl line 1 word 2"):
        lorakit.evaluate(folder, written(tmp_path / "rows.jsonl", rows))


def test_answers_are_measured_for_answerable_questions_and_others_apart(tmp_path):
    folder = encoder_folder(tmp_path / "qa", "AutoModelForQuestionAnswering")
    answers = [{"text": "by the river", "answer_start": 9}]
    rows = [
        {"question": "where?", "context": "It lies  by the river.", "answers": answers},
        {"question": "who?", "context": "It lies by the river.", "answers": []},
    ]
    found = lorakit.evaluate(folder, written(tmp_path / "rows.jsonl", rows)).target.scores
    assert set(found) == {"exact_match", "f1", "has_answer_exact_match", "has_answer_f1", "no_answer_accuracy"}


def test_hidden_words_have_the_same_masks_in_every_evaluation(tmp_path):
    folder = encoder_folder(tmp_path / "bert", "AutoModelForMaskedLM")
    file = written(tmp_path / "rows.jsonl", [{"text": f"{text}, {text}"} for text in TEXTS])
    first, again = (lorakit.evaluate(folder, file).target.scores for _ in range(2))
    assert first == again
    losses, hits = [], []
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    masked = tasks.objective_of(open_target(str(folder)))
    for example in masked.encode(canonical({"text": f"{text}, {text}"} for text in TEXTS)):
        batch = masked.collate([example], packed=False)
        words = batch.inputs["input_ids"].new_full((1, len(example.ids)), -100)
        words[0, batch.targets["positions_L"]] = batch.targets["targets_L"]
        with torch.no_grad():
            output = model(**batch.inputs, labels=words)
        hidden = words[0] >= 0
        losses += [output.loss.item()] * int(hidden.sum())
        hits += (output.logits[0].argmax(-1) == words[0])[hidden].tolist()
    assert first["pseudo_perplexity"].value == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
    assert first["mask_accuracy"].value == pytest.approx(sum(hits) / len(hits))


def test_rows_of_one_source_are_references_of_one_text(tmp_path):
    tokenizer = unigram_tokenizer()
    folder = save_checkpoint(tmp_path / "t5", tiny_writer("t5", vocab_size=len(tokenizer)), tokenizer)
    rows = [{"source": source, "target": target} for source, target in (("a", "one"), ("b", "two"), ("a", "three"))]
    found = lorakit.evaluate(folder, written(tmp_path / "rows.jsonl", rows))
    assert (found.rows, found.units) == (3, 2)
    assert {"bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "exact_match", "perplexity"} <= set(found.target.scores)
    assert "nrefs:var" in found.signatures["bleu"]


def test_a_sample_of_sources_keeps_all_their_references(tmp_path):
    tokenizer = unigram_tokenizer()
    folder = save_checkpoint(tmp_path / "t5", tiny_writer("t5", vocab_size=len(tokenizer)), tokenizer)
    rows = [{"source": source, "target": f"{source} {n}"} for n in range(3) for source in "abcd"]
    found = lorakit.evaluate(folder, written(tmp_path / "rows.jsonl", rows), rows=2)
    assert (found.rows, found.units) == (6, 2)


def test_every_answer_to_a_question_is_a_reference_of_what_is_written(tmp_path, monkeypatch):
    tokenizer = unigram_tokenizer()
    folder = save_checkpoint(tmp_path / "t5", tiny_writer("t5", vocab_size=len(tokenizer)), tokenizer)
    answers = [
        {"text": text, "answer_start": "It lies by the river.".index(text)} for text in ("river", "by the river")
    ]
    rows = [{"question": "where?", "context": "It lies by the river.", "answers": answers}]

    def each(self, prompts, settings, **_):
        for number, prompt in enumerate(prompts):
            yield number, [Completion(prompt, 0, "by the river", (1,), "eos", 0.0)]

    monkeypatch.setattr(Writer, "each", each)
    found = lorakit.evaluate(folder, written(tmp_path / "rows.jsonl", rows))
    assert found.target.scores["exact_match"].value == 1.0
    assert found.target.scores["chrf"].value == pytest.approx(100.0)
    assert "nrefs:2" in found.signatures["bleu"]
