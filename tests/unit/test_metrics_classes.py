"""Labels and scores: against a table counted by hand, scikit-learn and SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from lorakit.metrics import classes
from lorakit.metrics.intervals import sampled

LABELS = ("cat", "dog", "fox")
TRUE = ["cat"] * 5 + ["dog"] * 3 + ["fox"] * 2
SAID = ["cat", "cat", "cat", "dog", "fox", "dog", "dog", "cat", "fox", "fox"]


@pytest.fixture(autouse=True)
def _no_warning_on_the_screen():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def values(measures, rows):
    return {name: sample.score.value for name, sample in sampled(measures, rows).items()}


def test_a_confusion_matrix_counts_as_by_hand():
    assert classes.confusion(TRUE, SAID, LABELS) == [[3, 1, 1], [1, 2, 0], [0, 0, 2]]


def test_accuracy_macro_f1_and_mcc_are_those_of_the_matrix_counted_by_hand():
    found = values(classes.single_label(TRUE, SAID, LABELS), 10)
    f1_by_hand = (2 * 3 / (5 + 4) + 2 * 2 / (3 + 3) + 2 * 2 / (2 + 3)) / 3
    # Gorodkin: (hits n - sum of products) over the root of both spreads, with margins 5 3 2 and 4 3 3.
    mcc_by_hand = (7 * 10 - (5 * 4 + 3 * 3 + 2 * 3)) / ((100 - 38) * (100 - 34)) ** 0.5
    assert found == pytest.approx({"accuracy": 0.7, "macro_f1": f1_by_hand, "mcc": mcc_by_hand})


def test_every_resample_is_measured_as_scikit_learn_measures_it():
    draw = np.random.default_rng(0)
    true, said = (draw.choice(LABELS, 30, p=[0.6, 0.3, 0.1]) for _ in range(2))
    index = draw.integers(0, 30, 30)
    weights = np.bincount(index, minlength=30)[None].astype(float)
    measures = classes.single_label(list(true), list(said), LABELS)
    assert measures["mcc"](weights)[0] == pytest.approx(matthews_corrcoef(true[index], said[index]))
    assert measures["macro_f1"](weights)[0] == pytest.approx(f1_score(true[index], said[index], average="macro"))


def test_one_class_alone_has_mcc_0_and_its_table_no_share_of_nothing():
    true = said = ["cat"] * 4
    assert values(classes.single_label(true, said, LABELS), 4) == {"accuracy": 1, "macro_f1": 1, "mcc": 0}
    table = classes.table([[label] for label in true], [[label] for label in said], LABELS)
    assert (table[0].precision, table[0].recall, table[0].f1, table[0].support) == (1, 1, 1, 4)
    assert (table[1].precision, table[1].recall, table[1].support) == (None, None, 0)
    assert classes.confusion(true, said, LABELS)[0] == [4, 0, 0]


def test_the_table_of_classes_is_that_counted_by_hand():
    table = classes.table([[label] for label in TRUE], [[label] for label in SAID], LABELS)
    assert [(one.label, one.precision, one.recall, one.support) for one in table] == [
        ("cat", 3 / 4, 3 / 5, 5),
        ("dog", 2 / 3, 2 / 3, 3),
        ("fox", 2 / 3, 1, 2),
    ]


def test_several_labels_a_row_are_counted_as_by_hand():
    true = [["cat", "dog"], [], ["fox"], ["dog"]]
    said = [["cat"], [], ["fox", "dog"], ["dog"]]
    found = values(classes.multi_label(true, said, LABELS), 4)
    assert found == pytest.approx({"micro_f1": 2 * 3 / (4 + 4), "macro_f1": (1 + 0.5 + 1) / 3, "exact_match": 0.5})


def test_no_label_at_all_leaves_f1_undefined():
    found = values(classes.multi_label([[], []], [[], []], LABELS), 2)
    assert found == {"micro_f1": None, "macro_f1": None, "exact_match": 1}


def test_correlations_of_resamples_with_ties_are_those_of_scipy():
    draw = np.random.default_rng(0)
    true, said = draw.integers(0, 6, 40).astype(float), draw.normal(size=40).round(1) + 1e3
    index = draw.integers(0, 40, 40)
    weights = np.bincount(index, minlength=40)[None].astype(float)
    measures = classes.regression(list(true), list(said))
    assert measures["pearson"](weights)[0] == pytest.approx(pearsonr(true[index], said[index]).statistic)
    assert measures["spearman"](weights)[0] == pytest.approx(spearmanr(true[index], said[index]).statistic)


def test_a_constant_prediction_has_no_correlation_and_an_error():
    found = values(classes.regression([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]), 3)
    assert (found["pearson"], found["spearman"]) == (None, None)
    assert found["mean_squared_error"] == pytest.approx((0.9**2 + 1.9**2 + 2.9**2) / 3)


def test_the_worst_confusions_come_first_without_what_is_right():
    assert classes.worst_confusions([[9, 1], [3, 9]], ("a", "b"), 1) == [("b", "a", 3)]
