"""What columns mean, and rows brought to canonical names."""

from __future__ import annotations

import pytest

from lorakit.data.formats import canonical, recognise
from lorakit.errors import DataError
from lorakit.types import Format, Row


def rows_with(*fields: dict[str, object]) -> list[Row]:
    return [Row(each, "rows.jsonl", line) for line, each in enumerate(fields, start=1)]


def canonical_fields(*fields: dict[str, object], columns: dict[str, str] | None = None) -> list[object]:
    rows = rows_with(*fields)
    return [dict(row.fields) for row in canonical(rows, recognise(rows, columns or {}))[0]]


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"text": " a "}, {"text": " a "}),
        ({"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c"}),
        ({"question": "p", "answer": "c", "id": 3}, {"prompt": "p", "completion": "c"}),
        ({"instruction": "p", "output": "c"}, {"prompt": "p", "completion": "c"}),
        ({"instruction": "p", "input": "q", "output": "c"}, {"prompt": "p\nq", "completion": "c"}),
        ({"instruction": "p", "input": " ", "output": "c"}, {"prompt": "p", "completion": "c"}),
        ({"instruction": "p", "input": None, "output": "c"}, {"prompt": "p", "completion": "c"}),
        (
            {"conversations": [{"from": role, "value": role[0]} for role in ("system", "human", "gpt")]},
            {"messages": turns(("system", "s"), ("user", "h"), ("assistant", "g"))},
        ),
        (
            {"messages": turns(("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))},
            {"messages": turns(("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))},
        ),
    ],
)  # fmt: skip
def test_known_columns_become_canonical(fields, wanted):
    assert canonical_fields(fields) == [wanted]


def test_columns_can_be_named():
    wanted = [{"prompt": "facts", "completion": "words"}]
    assert canonical_fields({"mr": "facts", "ref": "words"}, columns={"prompt": "mr", "completion": "ref"}) == wanted
    assert canonical_fields({"prompt": "facts", "ref": "words"}, columns={"completion": "ref"}) == wanted


def test_naming_columns_chooses_where_several_meanings_fit():
    fields = {"instruction": "p", "output": "c", "text": "t"}
    assert canonical_fields(fields, columns={"text": "text"}) == [{"text": "t"}]
    assert canonical_fields(fields, columns={"output": "output"}) == [{"prompt": "p", "completion": "c"}]


def test_unused_columns_are_listed():
    assert recognise(rows_with({"id": 1, "text": "a"}, {"text": "b", "page": 0}), {}).unused == ("id", "page")


@pytest.mark.parametrize(
    ("fields", "columns", "message"),
    [
        ({"sentence": "a", "labels": 1}, {}, r"'sentence', 'labels' have no meaning.*prompt\+completion"),
        ({"prompt": "a"}, {}, "have no meaning"),
        ({"prompt": "a", "completion": "b", "text": "c"}, {}, r"more than one meaning: text, prompt\+completion"),
        ({"mr": "a", "ref": "b"}, {"prompt": "mr", "completion": "reff"}, r"the column 'reff'.*Did you mean 'ref'\?"),
        ({"mr": "a", "ref": "b"}, {"promt": "mr"}, r"data\.columns\.promt.*Did you mean 'prompt'\?"),
    ],
)  # fmt: skip
def test_columns_without_one_meaning_are_refused(fields, columns, message):
    with pytest.raises(DataError, match=message):
        recognise(rows_with(fields), columns)


def test_two_tables_in_one_are_told_apart_by_row():
    rows = rows_with({"text": "a"}, {"prompt": "p", "completion": "c"})
    with pytest.raises(DataError, match=r"line 1 has 'text', rows\.jsonl line 2 has 'prompt', 'completion'"):
        recognise(rows, {})


def test_no_rows_have_no_format():
    with pytest.raises(DataError, match="there are no rows"):
        recognise([], {})


GOOD = {"prompt": "p", "completion": "c"}


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"prompt": "p"}, r"has no 'completion' \(it has 'prompt'\)"),
        ({"prompt": "p", "completion": None}, "'completion' is null"),
        ({"prompt": "", "completion": "c"}, "'prompt' is empty"),
        ({"prompt": "p", "completion": " \u3000\n"}, "'completion' is only white space"),
        ({"prompt": "p", "completion": 7}, "'completion' is 7, which is not text; in quotes it is: \"7\""),
        ({"prompt": "p", "completion": True}, "'completion' is true, which is not text"),
        ({"prompt": ["p"], "completion": "c"}, "'prompt' is a list, not text"),
    ],
)
def test_a_row_without_words_is_named_with_its_line(fields, fault):
    rows = rows_with(GOOD, fields)
    with pytest.raises(DataError, match=rf"1 of 2 rows cannot be used:\n  rows\.jsonl line 2: {fault}"):
        canonical(rows, recognise(rows, {}))


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], "is an empty list"),
        ("hello", "no list of turns"),
        (["hello"], "turn 1 is no object"),
        (turns(("user", "u")), "no assistant turn"),
        (turns(("system", "s")), "no assistant turn"),
        (turns(("assistant", "a")), "turn 1 is the assistant's, but the user begins"),
        (turns(("system", "s"), ("assistant", "a")), "turn 2 is the assistant's"),
        (turns(("user", "u"), ("user", "v"), ("assistant", "a")), "turns 1 and 2 are both the user's"),
        (turns(("user", "u"), ("assistant", "a"), ("assistant", "b")), "turns 2 and 3 are both the assistant's"),
        (turns(("user", "u"), ("assistant", "a"), ("system", "s")), "turn 3 is a system turn"),
        (turns(("system", "s"), ("system", "s"), ("user", "u"), ("assistant", "a")), "turn 2 is a system turn"),
        (turns(("user", "u"), ("tool", "t"), ("assistant", "a")), "turn 2 has the role 'tool'"),
        (turns(("user", "u"), ("assistant", "")), "turn 2: 'content' is empty"),
        ([{"role": "user", "content": None}], "turn 1: 'content' is null or missing"),
        ([{"role": "user", "content": [{"type": "text"}]}], "turn 1: 'content' is not text"),
        ([{"role": ["user"], "content": "u"}], "turn 1 has the role"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{}]}], "turn 1 holds tool calls"),
    ],
)
def test_a_malformed_chat_is_named_with_its_turn(messages, fault):
    rows = rows_with({"messages": turns(("user", "u"), ("assistant", "a"))}, {"messages": messages})
    with pytest.raises(DataError, match=rf"rows\.jsonl line 2: .*{fault}"):
        canonical(rows, recognise(rows, {}))


def test_a_last_turn_that_is_not_answered_is_left_out_and_counted():
    rows = rows_with({"messages": turns(("user", "u"), ("assistant", "a"), ("user", "bye"))})
    kept, notes = canonical(rows, recognise(rows, {}))
    assert kept[0].fields["messages"] == turns(("user", "u"), ("assistant", "a"))
    assert len(notes) == 1
    assert notes[0].startswith("1 row: the chat ends in a turn that is not the assistant's; that turn is left out")


def test_what_else_a_turn_holds_is_counted():
    rows = rows_with({"messages": [{"role": "user", "content": "u", "name": "Kim"}, *turns(("assistant", "a"))]})
    assert canonical(rows, recognise(rows, {}))[1] == [
        "1 row: the chat has turns that also hold 'name', which nothing reads."
    ]


def test_the_first_five_broken_rows_and_their_count_are_said():
    rows = rows_with(GOOD, *[{"prompt": "", "completion": "c"}] * 8)
    with pytest.raises(DataError) as caught:
        canonical(rows, recognise(rows, {}))
    message = str(caught.value)
    assert message.startswith("8 of 9 rows cannot be used:")
    assert [line for line in range(1, 10) if f"line {line}:" in message] == [2, 3, 4, 5, 6]
    assert "and 3 more" in message


def test_broken_rows_can_be_skipped_and_are_counted():
    rows = rows_with(GOOD, {"prompt": "p"}, GOOD)
    kept, notes = canonical(rows, recognise(rows, {}), "skip")
    assert [row.line for row in kept] == [1, 3]
    assert notes == ["1 of 3 rows skipped: rows.jsonl line 2: has no 'completion' (it has 'prompt')."]


def test_to_skip_broken_rows_is_advised_only_where_others_are_left():
    def said(*rows):
        with pytest.raises(DataError) as caught:
            canonical(rows_with(*rows), Format("labelled", {"text": ("text",), "score": ("score",)}))
        return str(caught.value)

    sound, word = {"text": "a", "score": 1}, {"text": "b", "score": "good"}
    assert said(sound, word).endswith("Mend the rows, or skip and count them with --set data.broken=skip.")
    assert said(word, word).endswith(
        "\nNothing was trained or written. Mend the rows, or say which columns are meant: --set data.columns.ROLE=NAME."
    )


def test_a_table_of_broken_rows_alone_is_an_error_even_when_they_may_be_skipped():
    rows = rows_with({"text": ""}, {"text": None})
    with pytest.raises(DataError, match="which is all of them"):
        canonical(rows, recognise(rows, {}), "skip")
