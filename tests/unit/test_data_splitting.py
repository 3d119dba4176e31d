"""The evaluation share and samples."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import pytest

from lorakit.data.splitting import sample, split
from lorakit.errors import DataError
from lorakit.types import Format, Row

PAIRS = Format("prompt_completion", {"prompt": ("prompt",), "completion": ("completion",)})
TEXT = Format("text", {"text": ("text",)})
CHAT = Format("chat", {"messages": ("messages",)})


def pairs(prompts: list[str]) -> list[Row]:
    fields = [{"prompt": prompt, "completion": f"answer {number}"} for number, prompt in enumerate(prompts)]
    return [Row(each, "rows.csv", line) for line, each in enumerate(fields, start=2)]


def documents(texts: list[str]) -> list[Row]:
    return [Row({"text": text}, "rows.txt", line) for line, text in enumerate(texts, start=1)]


MANY = pairs([f"prompt {number % 40}" for number in range(200)])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_both_parts_together_are_all_rows_and_the_share_is_met(share):
    train, evaluation = split(MANY, PAIRS, share, 0)
    assert sorted([*train, *evaluation], key=lambda row: row.line) == MANY
    assert len(evaluation) == 200 * share


def test_no_prompt_stands_on_both_sides():
    train, evaluation = split(MANY, PAIRS, 0.1, 0)
    assert not {row.fields["prompt"] for row in train} & {row.fields["prompt"] for row in evaluation}


def test_prompts_that_differ_in_unicode_form_alone_stay_together():
    written = [unicodedata.normalize(form, f"{number}번 질문") for number in range(20) for form in ("NFC", "NFD")]
    train, evaluation = split(pairs(written), PAIRS, 0.3, 0)
    numbers = [{row.fields["prompt"][:2].rstrip("번ᄇ") for row in part} for part in (train, evaluation)]
    assert not numbers[0] & numbers[1]


def test_chats_with_one_opening_stay_together():
    def chat(opening: str, answer: str) -> dict[str, object]:
        said = [("system", "s"), ("user", opening), ("assistant", answer), ("user", answer), ("assistant", "end")]
        return {"messages": [{"role": role, "content": content} for role, content in said]}

    rows = [Row(chat(f"opening {number % 5}", f"answer {number}"), "rows.jsonl", number) for number in range(25)]
    train, evaluation = split(rows, CHAT, 0.2, 0)
    openings = [{row.fields["messages"][1]["content"] for row in part} for part in (train, evaluation)]
    assert len(evaluation) == 5
    assert not openings[0] & openings[1]


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    shuffled = random.Random(3).sample(MANY, len(MANY))
    chosen = {row.fields["prompt"] for row in split(MANY, PAIRS, 0.1, 0)[1]}
    assert {row.fields["prompt"] for row in split(shuffled, PAIRS, 0.1, 0)[1]} == chosen
    assert {row.fields["prompt"] for row in split(MANY, PAIRS, 0.1, 1)[1]} != chosen


@pytest.mark.parametrize("prompts", [["a", "b"], ["a"] * 99 + ["b"] * 5, ["a"] * 50 + ["b"] * 50])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.999])
def test_neither_part_is_empty_where_there_are_two_prompts(prompts, share):
    train, evaluation = split(pairs(prompts), PAIRS, share, 0)
    assert train
    assert evaluation


def test_one_prompt_alone_cannot_be_split():
    with pytest.raises(DataError, match=r"all 3 rows have the same prompt.*data\.eval=FILE"):
        split(pairs(["a"] * 3), PAIRS, 0.1, 0)
    with pytest.raises(DataError, match=r"there is one row alone.*data\.eval=FILE"):
        split(pairs(["a"]), PAIRS, 0.1, 0)


def test_many_documents_are_split_whole():
    rows = documents([f"document {number}" for number in range(20)])
    train, evaluation = split(rows, TEXT, 0.1, 0)
    assert sorted([*train, *evaluation], key=lambda row: row.line) == rows
    assert len(evaluation) == 2


def test_a_few_documents_are_cut_at_the_end_of_a_line():
    text = "\n".join(f"line {number:02d}" for number in range(100))
    train, evaluation = split(documents([text]), TEXT, 0.1, 0)
    assert f"{train[0].fields['text']}\n{evaluation[0].fields['text']}" == text
    assert evaluation[0].fields["text"].startswith("line 90")
    assert evaluation[0].line == 91


def test_a_long_line_is_cut_between_words():
    text = "Title\n" + " ".join(f"word{number:03d}" for number in range(200))
    train, evaluation = split(documents([text]), TEXT, 0.1, 0)
    assert f"{train[0].fields['text']} {evaluation[0].fields['text']}" == text
    assert len(evaluation[0].fields["text"]) / len(text) == pytest.approx(0.1, abs=0.01)


def test_a_document_of_one_word_is_only_trained_on():
    train, evaluation = split(documents(["word", "two words"]), TEXT, 0.1, 0)
    assert [row.fields["text"] for row in train] == ["word", "two"]
    assert [row.fields["text"] for row in evaluation] == ["words"]


def test_text_that_cannot_be_cut_is_an_error():
    with pytest.raises(DataError, match="too short to keep a share"):
        split(documents(["word"]), TEXT, 0.1, 0)


def test_a_sample_keeps_reading_order_and_depends_on_the_seed():
    chosen = sample(MANY, 50, 0)
    assert len(chosen) == 50
    assert [row.line for row in chosen] == sorted({row.line for row in chosen})
    assert sample(MANY, 50, 0) == chosen
    assert sample(MANY, 50, 1) != chosen


def test_a_sample_larger_than_the_table_is_the_table():
    assert sample(MANY, 500, 0) == MANY


LABELLED = Format("labelled", {"text": ("text",), "label": ("label",)})


def labelled(pairs_of: list[tuple[str, str]]) -> list[Row]:
    return [Row({"text": text, "label": label}, "rows.csv", line) for line, (text, label) in enumerate(pairs_of, 2)]


def test_each_label_keeps_its_share():
    rows = labelled([(f"text {number}", "rare" if number % 10 == 0 else "common") for number in range(400)])
    for seed in range(5):
        _, evaluation = split(rows, LABELLED, 0.25, seed)
        assert Counter(row.fields["label"] for row in evaluation) == {"common": 90, "rare": 10}


def test_many_rare_labels_do_not_raise_the_share():
    rows = labelled([(f"text {number}", f"label {number % 100}") for number in range(300)])
    _, evaluation = split(rows, LABELLED, 0.1, 0)
    assert len(evaluation) == 30


def test_one_text_with_several_labels_stays_on_one_side():
    rows = labelled([(f"text {number % 50}", "ab"[number % 3 == 0]) for number in range(200)])
    train, evaluation = split(rows, LABELLED, 0.2, 0)
    assert not {row.fields["text"] for row in train} & {row.fields["text"] for row in evaluation}


def test_no_label_or_tag_is_taken_away_from_training():
    single = labelled([(f"text {number}", f"label {number // 2}" if number < 40 else "rest") for number in range(80)])
    several = [
        Row({"text": f"text {number}", "labels": ["rest", f"label {number // 2}"]}, "rows.csv", number)
        for number in range(60)
    ]
    tagged = [
        Row({"tokens": [f"word {number}"], "tags": [f"B-{number // 2}"]}, "rows.conll", number) for number in range(60)
    ]
    for rows, name in ((single, "labelled"), (several, "labelled"), (tagged, "tagged")):
        for seed in range(5):
            train, evaluation = split(rows, Format(name, {}), 0.4, seed)
            names = [
                {label for row in part for role in ("label", "labels", "tags") for label in as_list(row.fields, role)}
                for part in (train, evaluation)
            ]
            assert evaluation
            assert names[1] <= names[0]


def as_list(fields, role: str) -> list[str]:
    value = fields.get(role, [])
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("name", "shared", "own"),
    [
        ("source_target", "source", "target"),
        ("extractive", "context", "question"),
        ("labelled", "text", "text_pair"),
        ("tagged", "tokens", "tags"),
    ],
)
def test_rows_of_one_source_context_or_premise_stay_together(name, shared, own):
    def value(role: str, number: int) -> object:
        return [f"{role} {number}"] if name == "tagged" else f"{role} {number}"

    rows = [Row({shared: value(shared, n % 20), own: value(own, n % 3)}, "rows.jsonl", n) for n in range(100)]
    train, evaluation = split(rows, Format(name, {}), 0.2, 0)
    assert len(evaluation) == 20
    assert not {str(row.fields[shared]) for row in train} & {str(row.fields[shared]) for row in evaluation}
