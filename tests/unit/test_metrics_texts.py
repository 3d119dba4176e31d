"""Written texts: against sacrebleu's and rouge-score's own corpus figures, and closed forms in Korean."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from lorakit.metrics.intervals import sampled
from lorakit.metrics.texts import Words, texts, tokenizer_for

WRITTEN = ["The cat sat on a mat.", "A dog barked at me.", "", "Alimentum lies by the river ."]
REFERENCES = [
    ["The cat sat on the mat.", "A cat was sitting on the mat."],
    ["The dog barked at me."],
    ["Something else."],
    ["Alimentum is by the river.", "Alimentum lies in the riverside area.", "By the river lies Alimentum."],
]


def values(written, references):
    found = texts(written, references)
    return {name: sample.score.value for name, sample in sampled(found.measures, len(written)).items()}


def test_bleu_and_chrf_are_those_of_sacrebleu_with_rows_of_more_and_fewer_references():
    documents = [[row[number] if number < len(row) else None for row in REFERENCES] for number in range(3)]
    found = values(WRITTEN, REFERENCES)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(WRITTEN, documents).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(WRITTEN, documents).score)


def test_a_resample_has_the_bleu_of_its_rows():
    index = [0, 0, 1, 3]
    weights = np.bincount(index, minlength=4)[None].astype(float)
    resampled = texts(WRITTEN, REFERENCES).measures["bleu"](weights)[0]
    again = texts([WRITTEN[row] for row in index], [REFERENCES[row] for row in index]).measures["bleu"]
    assert resampled == pytest.approx(again(np.ones((1, 4)))[0])


def test_rouge_of_english_is_that_of_its_own_tokenizer():
    scorer = RougeScorer(["rouge1", "rougeL"])
    single = [row[:1] for row in REFERENCES]
    own = [scorer.score(row[0], text) for text, row in zip(WRITTEN, single, strict=True)]
    found = values(WRITTEN, single)
    assert found["rouge_1"] == pytest.approx(100 * np.mean([one["rouge1"].fmeasure for one in own]))
    assert found["rouge_l"] == pytest.approx(100 * np.mean([one["rougeL"].fmeasure for one in own]))


def test_rouge_of_korean_counts_its_words():
    found = values(["서울은 한국의 수도다"], [["서울은 큰 도시다", "서울은 한국의 도시다"]])
    assert found["rouge_1"] == pytest.approx(100 * 2 / 3)
    assert found["rouge_2"] == pytest.approx(100 * 1 / 2)


def test_words_are_cut_in_every_script():
    assert Words().tokenize("Don't stop, 서울! 東京です नमस्ते") == ["don", "t", "stop", "서울", *"東京です", "नमस्ते"]


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("The river.", "13a"),
        ("서울은 GPT의 수도이다.", "intl"),
        ("東京です。", "char"),
        ("1 + 2", "13a"),
        ("Élan vital", "13a"),
    ],
)
def test_the_script_of_the_references_says_how_bleu_cuts_words(text, tokenizer):
    assert tokenizer_for([text]) == tokenizer
    assert f"tok:{tokenizer}" in texts([text], [[text]]).signatures["bleu"]


def test_what_is_written_exactly_has_full_marks_in_korean():
    sentence = "서울은 대한민국의 수도이며 한강이 흐른다"
    found = values([sentence], [["다른 문장", f" {sentence}\n"]])
    assert found == pytest.approx(
        {"bleu": 100, "chrf": 100, "rouge_1": 100, "rouge_2": 100, "rouge_l": 100, "exact_match": 1}
    )


def test_nothing_written_has_no_marks_and_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert set(values(["", ""], [["one"], ["two words"]]).values()) == {0.0}
    assert not caplog.records
