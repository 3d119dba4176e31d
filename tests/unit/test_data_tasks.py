"""Labelled, tagged, extractive and source-target rows: what columns mean, and what canonical rows hold."""

from __future__ import annotations

import unicodedata

import pytest
from seqeval.scheme import BILOU, IOB2, IOBES, Tokens

from lorakit.data.formats import canonical, label_names, recognise
from lorakit.errors import DataError
from lorakit.types import Row


def rows_with(*fields: dict[str, object]) -> list[Row]:
    return [Row(each, "rows.jsonl", line) for line, each in enumerate(fields, start=1)]


def canonical_fields(fields, columns=None, accepted=None, **options) -> list[dict[str, object]]:
    rows = rows_with(fields)
    return [dict(row.fields) for row in canonical(rows, recognise(rows, columns or {}, accepted), **options)[0]]


PAIR = {"text": "t", "text_pair": "u"}
SQUAD = {"question": "Where?", "context": "In Paris, in Paris."}
ANSWERS = [{"text": "Paris", "start": 3}, {"text": "Paris", "start": 13}]


@pytest.mark.parametrize(
    ("fields", "name", "wanted"),
    [
        ({"source": "s", "target": "t"}, "source_target", {"source": "s", "target": "t"}),
        ({"text": "t", "label": "a"}, "labelled", {"text": "t", "label": "a"}),
        ({**PAIR, "label": "a"}, "labelled", {**PAIR, "label": "a"}),
        ({"sentence1": "t", "sentence2": "u", "score": "2.50"}, "labelled", {**PAIR, "score": 2.5}),
        (
            {"premise": "t", "hypothesis": "u", "gold_label": "no", "source": "web"},
            "labelled",
            {**PAIR, "label": "no"},
        ),
        (
            {"question1": "t", "question2": "u", "is_duplicate": "1"},
            "labelled",
            {**PAIR, "label": "1"},
        ),
        ({"text": "t", "labels": ["a", "b"]}, "labelled", {"text": "t", "labels": ["a", "b"]}),
        ({"tokens": ["A", "b"], "tags": ["B-x", "O"]}, "tagged", {"tokens": ["A", "b"], "tags": ["B-x", "O"]}),
        ({"tokens": "A b", "ner_tags": "B-x O"}, "tagged", {"tokens": ["A", "b"], "tags": ["B-x", "O"]}),
        (
            {**SQUAD, "answers": {"text": ["Paris", "Paris"], "answer_start": [3, 13]}},
            "extractive",
            {**SQUAD, "answers": ANSWERS},
        ),
        (
            {**SQUAD, "answers": [{"text": "Paris", "answer_start": 3}, {"text": "Paris", "answer_start": 13}]},
            "extractive",
            {**SQUAD, "answers": ANSWERS},
        ),
        ({**SQUAD, "answers": []}, "extractive", {**SQUAD, "answers": []}),
        (
            {**SQUAD, "answers": [{"text": "Paris", "answer_start": 3}], "is_impossible": True},
            "extractive",
            {**SQUAD, "answers": []},
        ),
    ],
)  # fmt: skip
def test_known_columns_become_canonical(fields, name, wanted):
    assert recognise(rows_with(fields), {}).name == name
    assert canonical_fields(fields) == [wanted]


@pytest.mark.parametrize(
    ("value", "label"), [(1, "1"), (True, "true"), (0.5, "0.5"), (" spam ", "spam"), ("007", "007")]
)
def test_a_label_is_text_whatever_json_wrote(value, label):
    assert canonical_fields({"text": "t", "label": value}) == [{"text": "t", "label": label}]


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["a", 2], ["a", "2"]),
        ([], []),
        ("", []),
        (" ", []),
        ("a,b", ["a", "b"]),
        ("a | b", ["a", "b"]),
        ("one, two|three", ["one, two", "three"]),
        ("a", ["a"]),
        (4, ["4"]),
    ],
)
def test_several_labels_are_a_list_or_parted_text(value, labels):
    assert canonical_fields({"text": "t", "labels": value}) == [{"text": "t", "labels": labels}]


@pytest.mark.parametrize(("value", "score"), [(3, 3.0), (" -2.5e1 ", -25.0), (".5", 0.5)])
def test_a_score_is_a_number(value, score):
    assert canonical_fields({"text": "t", "score": value}) == [{"text": "t", "score": score}]


def test_a_number_in_the_label_column_is_a_class_and_no_score():
    assert canonical_fields({"text": "t", "label": 2.5}) == [{"text": "t", "label": "2.5"}]


def test_the_meaning_that_reads_more_columns_wins():
    assert recognise(rows_with({"text": "t", "label": "a"}), {}).name == "labelled"
    assert "text_pair" in recognise(rows_with({**PAIR, "label": "a"}), {}).columns


def test_an_objective_reads_only_the_formats_it_accepts():
    assert canonical_fields({"text": "t", "label": "a"}, accepted=("text",)) == [{"text": "t"}]
    with pytest.raises(DataError, match="mean labelled rows, which this objective does not learn"):
        recognise(rows_with({"text": "t", "label": "a"}), {}, ("tagged",))


def test_two_ways_to_label_one_table_are_a_question():
    rows = rows_with({"text": "t", "label": "a", "score": 1})
    with pytest.raises(DataError, match=r"text\+label, text\+score\. Choose one: --set data\.columns\.text=text"):
        recognise(rows, {})
    assert set(recognise(rows, {"score": "score"}).columns) == {"text", "score"}


def test_every_role_can_be_named():
    assert canonical_fields({"document": "t", "gold": "a"}, {"text": "document", "label": "gold"}) == [
        {"text": "t", "label": "a"}
    ]
    assert canonical_fields({"1": "t", "2": "a,b", "3": "id"}, {"text": "1", "labels": "2"}) == [
        {"text": "t", "labels": ["a", "b"]}
    ]


def test_a_value_inside_an_object_is_named_with_a_dot():
    fields = {"sentence1": "t", "sentence2": "u", "labels": {"label": 4.9, "real-label": 4.86}}
    assert canonical_fields(fields, {"score": "labels.real-label"}) == [{**PAIR, "score": 4.86}]
    assert recognise(rows_with(fields), {"score": "labels.label"}).unused == ()
    with pytest.raises(DataError, match=r"'labels' is an object.*data\.columns\.score=NAME with one of labels\.label"):
        canonical_fields(fields)


def test_several_targets_become_rows_of_their_own_and_are_counted():
    rows = rows_with({"source": "s", "target": ["one", "two"]}, {"source": "z", "target": "only"})
    kept, notes = canonical(rows, recognise(rows, {}))
    assert [(row.line, row.fields["source"], row.fields["target"]) for row in kept] == [
        (1, "s", "one"),
        (1, "s", "two"),
        (2, "z", "only"),
    ]
    assert notes == ["1 row: a list of targets, each of which became a row of its own."]


def test_rows_to_predict_need_no_answers():
    for fields in (PAIR, {"tokens": ["a"]}, {"source": "s"}, SQUAD):
        rows = rows_with(fields)
        name = {"text": "labelled", "tokens": "tagged", "source": "source_target"}.get(next(iter(fields)), "extractive")
        (kept,), _ = canonical(rows, recognise(rows, {}, (name,), answered=False))
        assert kept.fields == fields


def test_numbers_become_the_names_of_a_file_or_a_list(tmp_path):
    (tmp_path / "names.txt").write_text("joy\ngrief\n")
    names = label_names("names.txt", tmp_path)
    assert names == label_names(["joy", "grief"]) == ("joy", "grief")
    assert canonical_fields({"text": "t", "labels": "1,joy"}, label_names=names)[0]["labels"] == ["grief", "joy"]
    assert canonical_fields({"tokens": ["a", "b"], "tags": [0, 1]}, label_names=names)[0]["tags"] == ["joy", "grief"]
    with pytest.raises(DataError, match=r"line 1: 'label' is '2'; data\.label_names holds numbers 0 to 1"):
        canonical_fields({"text": "t", "label": 2}, label_names=names)


def test_a_name_of_a_label_stands_once():
    with pytest.raises(DataError, match="number 2 has the name 'joy' of an earlier one"):
        label_names(["joy", "grief", "joy"])


APART = unicodedata.normalize("NFD", "한국")


def test_unicode_is_left_as_it_is_unless_asked():
    fields = {"tokens": [APART], "tags": ["O"]}
    assert canonical_fields(fields)[0]["tokens"] == [APART]
    assert canonical_fields(fields, normalise="nfc")[0]["tokens"] == ["한국"]


def test_composing_moves_the_start_of_an_answer_with_its_words():
    fields = {"question": APART, "context": f"{APART} {APART}!", "answers": [{"text": APART, "answer_start": 7}]}
    assert canonical_fields(fields, normalise="nfc") == [
        {"question": "한국", "context": "한국 한국!", "answers": [{"text": "한국", "start": 3}]}
    ]


def tags_read(*tags: str) -> list[str]:
    return canonical_fields({"tokens": [f"word{place}" for place in range(len(tags))], "tags": list(tags)})[0]["tags"]


@pytest.mark.parametrize(("scheme", "last", "only"), [(IOBES, "E", "S"), (BILOU, "L", "U")])
def test_entities_of_bioes_and_bilou_are_those_that_seqeval_finds(scheme, last, only):
    tags = [*(f"{only}-A", "O", "B-A", f"{last}-A", "B-B", "I-B", f"{last}-B", f"{only}-B", f"{only}-B"), "O"]
    wanted = [(one.start, one.end, one.tag) for one in Tokens(tags, scheme).entities]
    assert len(wanted) == 5
    assert [(one.start, one.end, one.tag) for one in Tokens(tags_read(*tags), IOB2).entities] == wanted


def test_middle_tags_of_bmes_go_on_with_their_entity():
    assert tags_read("B-A", "M-A", "E-A", "S-B") == ["B-A", "I-A", "I-A", "B-B"]


def test_bare_tags_mark_entities_of_a_kind_without_a_name():
    assert tags_read("O", "B", "I") == ["O", "B-ENTITY", "I-ENTITY"]


@pytest.mark.parametrize("tags", [("B-A", "I-A", "O"), ("N", "V", "I"), ("S-A", "NN"), ("B", "E", "S")])
def test_other_tags_stay_as_they_are(tags):
    assert tags_read(*tags) == list(tags)


def test_rows_with_other_tags_of_entities_are_counted():
    rows = rows_with(*({"tokens": ["a"], "tags": tags} for tags in (["S-A"], ["B-A"], ["U-A"], ["B"])))
    assert canonical(rows, recognise(rows, {}))[1] == [
        "2 rows: tags of the kind BIOES or BILOU, read as BIO: E-, L- and M- as I-, S- and U- as B-.",
        "1 row: tags B and I, which name no kind of entity, read as B-ENTITY and I-ENTITY.",
    ]
