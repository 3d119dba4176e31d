"""Names of labels, their order, and rows that do not fit them."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import tiny_tokenizer
from lorakit import families
from lorakit.errors import DataError
from lorakit.objectives.sequence_classification import SequenceClassification
from lorakit.objectives.settings import SequenceClassificationSettings
from lorakit.types import Job, Row


def rows(role: str, *values) -> list[Row]:
    return [Row({"text": f"text {number}", role: value}, "rows.csv", number) for number, value in enumerate(values, 2)]


def settings(**values) -> SequenceClassificationSettings:
    return SequenceClassificationSettings(**values)


def objective(train: list[Row], *, max_length: int = 64, too_long="error", **values) -> SequenceClassification:
    job = Job(
        settings=SequenceClassification.resolved(settings(**values), train),
        tokenizer=tiny_tokenizer(),
        family=families.Family("gpt2", "decoder", "", (), None),
        config={},
        format="labelled",
        style=None,
        max_length=max_length,
        too_long=too_long,
    )
    return SequenceClassification.of(job)


def test_labels_are_sorted_so_that_the_order_of_rows_does_not_matter():
    forward, backward = rows("label", "나쁨", "good", "bad"), rows("label", "bad", "good", "나쁨")
    assert SequenceClassification.labels_of(forward, settings()) == ("bad", "good", "나쁨")
    assert SequenceClassification.labels_of(backward, settings()) == ("bad", "good", "나쁨")


def test_whole_numbers_are_sorted_as_numbers():
    assert SequenceClassification.labels_of(rows("label", "10", "9", "-1"), settings()) == ("-1", "9", "10")


def test_labels_of_the_recipe_keep_their_order():
    named = settings(labels=["yes", "no", "never seen"])
    assert SequenceClassification.labels_of(rows("label", "no", "yes"), named) == ("yes", "no", "never seen")


@pytest.mark.parametrize(
    ("role", "values", "problem"),
    [
        ("label", ("1", "0"), "single_label_classification"),
        ("labels", (["a"], []), "multi_label_classification"),
        ("score", (1.0, 0.0), "regression"),
    ],
)
def test_the_column_says_what_is_learned_and_the_look_of_its_values_does_not(role, values, problem):
    assert SequenceClassification.problem_of(rows(role, *values), settings()) == problem


def test_a_recipe_may_ask_for_a_regression_on_the_column_label():
    found = objective(rows("label", "0.5", "3"), problem="regression")
    assert found.head.problem == "regression"
    assert [example.labels.tolist() for example in found.encode(rows("label", "0.5", "3"))] == [[0.5], [3.0]]


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    names = ["a", "a", "a", "b", "c", "c"]
    found = SequenceClassification.resolved(settings(class_weights="balanced"), rows("label", *names))
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=names)
    assert list(found.class_weights.values()) == pytest.approx(expected.tolist())


def test_resolved_settings_resolve_to_themselves():
    found = SequenceClassification.resolved(settings(class_weights="balanced"), rows("label", "b", "a", "a"))
    assert SequenceClassification.resolved(found, rows("label", "b")) == found


def test_a_label_that_only_the_evaluation_has_is_refused_with_its_row_and_the_nearest_name():
    trained = objective(rows("label", "refund", "transfer"))
    with pytest.raises(DataError, match=r"rows.csv line 2: label is 'refunds'.*'refund'.*objective.labels"):
        trained.encode(rows("label", "refunds"))


@pytest.mark.parametrize(
    ("train", "values", "message"),
    [
        (rows("label", "a", "a"), {}, "all 2 training rows have the label 'a'"),
        (rows("label", "a", "b"), {"labels": ["a", "a"]}, "names 'a' twice"),
        (rows("label", "a", "b"), {"class_weights": {"c": 1.0}}, "'c', which is no label"),
        (rows("label", "a", "b"), {"class_weights": {"a": 0.0}}, "weights are above 0"),
        (rows("label", "a", "b"), {"class_weights": "balanced", "labels": ["a", "b", "c"]}, "label 'c'"),
        (rows("score", 1.0), {"class_weights": "balanced"}, "no classes to weigh"),
        (rows("other", "a"), {}, "Name the column"),
    ],
)
def test_settings_that_the_rows_contradict_are_refused(train, values, message):
    with pytest.raises(DataError, match=message):
        SequenceClassification.resolved(settings(**values), train)


def test_a_score_that_is_no_number_is_refused_with_its_row():
    trained = objective(rows("score", 1.0, 2.0))
    with pytest.raises(DataError, match=r"rows.csv line 2: the score is 'many'"):
        trained.encode(rows("score", "many"))


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_text_is_refused_with_its_row(text):
    trained = objective(rows("label", "a", "b"))
    with pytest.raises(DataError, match=r"rows.csv line 7: text is empty"):
        trained.encode([Row({"text": text, "label": "a"}, "rows.csv", 7)])


def pair_of(text: str, other: str | None) -> Row:
    return Row({"text": text, "label": "a"} | ({"text_pair": other} if other is not None else {}), "rows.csv", 7)


@pytest.mark.parametrize(("learned", "asked", "said"), [("b", None, "pairs of texts"), (None, "b", "single texts")])
def test_what_learned_pairs_reads_no_single_text_and_the_other_way_round(learned, asked, said):
    trained = objective([pair_of("x", learned), *rows("label", "b")])
    with pytest.raises(DataError, match=f"rows.csv line 7: this model learned {said}"):
        trained.encode([pair_of("x", asked)])


def test_a_missing_second_text_is_refused_with_its_row():
    trained = objective(rows("label", "a", "b"), pairs=True)
    given = [Row({"text": "x", "text_pair": pair, "label": "a"}, "rows.csv", 1 + len(pair)) for pair in ("yes", "")]
    with pytest.raises(DataError, match=r"rows.csv line 1: text_pair is empty"):
        trained.encode(given)


LONG = [Row({"text": "the lazy dog " * 20, "label": "a"}, "rows.csv", 4)]


def test_long_rows_are_refused_with_the_cure():
    trained = objective(rows("label", "a", "b"), max_length=16)
    with pytest.raises(DataError, match=r"rows.csv line 4 \(\d+ tokens\).*too_long=truncate"):
        trained.encode(LONG)


@pytest.mark.parametrize(("policy", "left", "note"), [("drop", 0, "left out"), ("truncate", 1, "cut at the end")])
def test_long_rows_are_counted_where_the_recipe_says_what_to_do(policy, left, note):
    trained = objective(rows("label", "a", "b"), max_length=16, too_long=policy)
    found = trained.encode(LONG)
    assert (len(found), [len(example) for example in found]) == (left, [16] * left)
    assert trained.notes == [f"1 row longer than 16 tokens: {note}"]


def test_a_text_on_a_decoder_never_ends_with_the_padding_id():
    from tokenizers import processors

    trained = objective(rows("label", "a", "b"))
    backend = trained.job.tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    assert trained.encode(rows("label", "a"))[0].ids[-1] != trained.padding
