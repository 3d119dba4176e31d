"""Answers in contexts: which tokens are learned, what windows hold, and which span is the best."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from conftest import SENTENCES
from lorakit.errors import DataError
from lorakit.objectives.question_answering import QuestionAnswering
from lorakit.objectives.spans import Spans
from lorakit.objectives.windows import Window
from reading import TOKENIZERS, a_job, a_model, assert_same_gradients, gradients
from runs import rows

CONTEXT = " ".join(SENTENCES[:4])
QUESTION = "what is the capital?"


def asked(answer=None, context=CONTEXT, question=QUESTION):
    """A row, its answer at its first place in the context."""
    answers = [] if answer is None else [{"text": answer, "start": context.index(answer)}]
    return {"question": question, "context": context, "answers": answers}


def a_reader(kind="bert", tokenizer=None, **changes) -> QuestionAnswering:
    changes = {"max_length": 400, "max_answer": 8, "stride": 16, **changes}
    tokenizer = tokenizer or TOKENIZERS[kind]()
    return QuestionAnswering.of(a_job("question_answering", "extractive", tokenizer, kind, **changes))


def a_reading_model(kind="bert", **changes):
    bound = {"t5": {}, "gpt2": {"n_positions": 400}, "bert": {"max_position_embeddings": 400}}[kind]
    return a_model(kind, "AutoModelForQuestionAnswering", **bound, **changes)


def some_examples(reader):
    words = ["Alimentum", "서울은", "fox", None, "lazy dog", "글자를", "small model", None]
    contexts = [CONTEXT, SENTENCES[3], SENTENCES[0], SENTENCES[1], CONTEXT, SENTENCES[3], SENTENCES[1], CONTEXT]
    return reader.encode(rows([asked(one, context) for one, context in zip(words, contexts, strict=True)]))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "answer", ["fox", "small model", "서울은", "대한민국의 수도이다", "quick brown fox", "riverside"]
)
def test_labels_are_the_tokens_that_spell_the_answer(kind, answer):
    tokenizer = TOKENIZERS[kind]()
    (example,) = a_reader(kind, tokenizer).encode(rows([asked(answer)]))
    start, end = example.labels
    said = tokenizer.decode(example.ids[start : end + 1].tolist()).strip()
    assert said == answer


def test_an_answer_inside_a_token_is_widened_and_counted():
    reader = a_reader()
    (example,) = reader.encode(rows([asked("limentu", "Facts: Alimentum. riverside")]))
    said = reader.job.tokenizer.decode(example.ids[example.labels[0] : example.labels[1] + 1].tolist())
    assert "limentu" in said
    assert said in "Alimentum"
    assert reader.notes == ["1 answer with a border inside a token: widened to whole ones"]


def test_an_answer_with_characters_of_an_emoji_covers_all_its_bytes():
    context = "the fox 👍🏽 the dog"
    reader = a_reader("gpt2")
    (example,) = reader.encode(rows([asked("👍🏽", context)]))
    said = reader.job.tokenizer.decode(example.ids[example.labels[0] : example.labels[1] + 1].tolist())
    assert said.strip() == "👍🏽"


def test_without_an_answer_position_0_is_right():
    (example,) = a_reader().encode(rows([asked()]))
    assert example.labels.tolist() == [0, 0]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("stride", [9, 16, 200])
def test_windows_hold_every_token_of_the_context_and_every_answer_whole(kind, stride):
    tokenizer = TOKENIZERS[kind]()
    context = CONTEXT + " " + CONTEXT
    reader = a_reader(kind, tokenizer, max_length=60, stride=stride)
    (framed,) = reader._framed(rows([asked(None, context)]))
    length = int(framed.second.sum())
    room = 60 - (len(framed) - length)
    cuts = reader._cuts(framed)
    assert {token for one in cuts for token in range(one.begin, one.end)} == set(range(length))
    assert all(one.begin + min(stride, room // 2) <= before.end for before, one in pairwise(cuts))
    for answer in ("fox", "lazy dog", "speak.", "riverside", "Alimentum is by", "잃지 않고", "수도이다."):
        windows = reader.encode(rows([asked(answer, context)]))
        assert all(len(one) <= 60 for one in windows)
        assert [one.part for one in windows] == list(range(len(windows)))
        held = [one for one in windows if one.labels[1] > 0]
        assert held, answer
        for one in held:
            said = tokenizer.decode(one.ids[one.labels[0] : one.labels[1] + 1].tolist()).strip()
            assert said == tokenizer.decode(tokenizer(answer, add_special_tokens=False).input_ids).strip()


def test_an_answer_across_the_borders_of_all_windows_gets_a_window_of_its_own():
    context = " ".join(["the fox"] * 60)
    answer = " ".join(["fox the"] * 12)
    start = context.index("fox", 200)
    row = {"question": "the", "context": context, "answers": [{"text": answer, "start": start}]}
    reader = a_reader(max_length=36, stride=1)
    windows = reader.encode(rows([row]))
    assert len(windows) == len(reader._cuts(reader._framed(rows([row]))[0])) + 1
    (held,) = [one for one in windows if one.labels[1] > 0]
    assert reader.job.tokenizer.decode(held.ids[held.labels[0] : held.labels[1] + 1].tolist()) == answer


def test_of_a_bert_the_context_is_of_the_second_token_type():
    reader = a_reader()
    (example,) = reader.encode(rows([asked("fox")]))
    separators = np.flatnonzero(example.ids == reader.job.tokenizer.sep_token_id)
    assert example.segments.tolist() == [0] * (separators[0] + 1) + [1] * (separators[1] - separators[0])
    assert "token_type_ids" in reader.collate([example], packed=False).inputs
    assert "token_type_ids" not in a_reader("gpt2").collate(a_reader("gpt2").encode(rows([asked("fox")])), False).inputs


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_loss_is_the_sum_of_the_terms_that_transformers_averages(kind):
    reader, model = a_reader(kind), a_reading_model(kind).double()
    for answer in ("서울은", None):
        (example,) = reader.encode(rows([asked(answer)]))
        batch = reader.collate([example], packed=False)
        with torch.no_grad():
            found = reader.loss_sums(model, batch)
            start, end = (torch.tensor([int(label)]) for label in example.labels)
            expected = model(**batch.inputs, start_positions=start, end_positions=end).loss
        assert reader.counts(batch) == {"start": 1, "end": 1}
        assert float(found["start"] + found["end"]) == pytest.approx(2 * float(expected), rel=1e-6)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_padded_is_one_by_one(kind):
    reader, model = a_reader(kind), a_reading_model(kind)
    examples = some_examples(reader)
    with torch.no_grad():
        padded = reader.loss_sums(model, reader.collate(examples, packed=False))
        alone = [reader.loss_sums(model, reader.collate([one], packed=False)) for one in examples]
    assert len({len(one) for one in examples}) > 2
    for name in ("start", "end"):
        assert float(padded[name]) == pytest.approx(sum(float(one[name]) for one in alone), rel=1e-5)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_eight_by_one_four_by_two_and_one_by_eight_give_the_gradient_of_the_whole(kind):
    reader, model = a_reader(kind), a_reading_model(kind)
    examples = some_examples(reader)
    expected = gradients(model, reader, examples, 1, double=True)
    for size in (8, 2, 1):
        assert_same_gradients(gradients(model, reader, examples, size), expected)


def test_a_question_that_leaves_no_room_is_refused_or_left_out_and_counted():
    long = asked("fox", question=CONTEXT)
    said = r"1 question without room for an answer in max_length 50 .*: rows\.jsonl line 2\. "
    with pytest.raises(DataError, match=said):
        a_reader(max_length=50).encode(rows([asked("fox"), long]))
    reader = a_reader(max_length=50, too_long="drop")
    assert {one.row for one in reader.encode(rows([asked("fox"), long]))} == {0}
    assert "1 question without room for the answer in 50 tokens: left out" in reader.notes
    with pytest.raises(DataError, match=r"rows\.jsonl line 1\. "):
        reader.predict(a_reading_model(), rows([long]))


def test_a_stride_wider_than_half_a_window_is_told():
    reader = a_reader(max_length=60, stride=200)
    reader.encode(rows([asked("fox")]))
    assert "1 context with half a window shared, in place of objective.stride 200 tokens" in reader.notes


def brute_force(scores, longest):
    """Best span over windows, by trying all of them: (score, first, last) in tokens of the context."""
    return max(
        (starts[first - begin] + ends[last - begin], first, last)
        for begin, starts, ends in scores
        for first in range(begin, begin + len(starts))
        for last in range(first, min(first + longest, begin + len(starts)))
    )


def test_the_best_span_is_the_best_of_all_that_any_window_holds():
    draw = np.random.default_rng(0)
    context = "".join(chr(97 + number) for number in range(10))
    offsets = np.array([(number, number + 1) for number in range(10)])
    for _ in range(30):
        spans, given, nothing = Spans.of(10, 3), [], []
        for begin, end in ((0, 6), (4, 10)):
            # Two tokens stand before the text, one behind it, and two places are padding.
            starts, ends = draw.normal(size=(2, end - begin + 5))
            starts[-2:] = ends[-2:] = -np.inf
            spans.add(Window(None, begin, end, 2), starts, ends)
            given.append((begin, starts[2:-3], ends[2:-3]))
            nothing.append(starts[0] + ends[0])
        score, first, last = brute_force(given, 3)
        said = spans.best(context, offsets, 5)
        if score > min(nothing):
            assert (said["start"], said["end"], said["answer"]) == (first, last + 1, context[first : last + 1])
        else:
            assert (said["start"], said["end"], said["answer"]) == (None, None, "")
        everything = spans.best(context, offsets, 10**6)
        assert sum(one["probability"] for one in everything["top"]) == pytest.approx(1)
        assert len(said["top"]) == 5
        ratio = np.exp(score - min(nothing)) * said["no_answer_probability"]
        assert max(one["probability"] for one in everything["top"] if one["answer"]) == pytest.approx(ratio)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_answers_are_characters_of_the_context(kind):
    context = "the  fox 👍🏽 서울은 대한민국의\nsmall model."
    for said in a_reader(kind).predict(a_reading_model(kind), rows([asked(None, context)]), top=50)[0]["top"]:
        if said["start"] is not None:
            assert context[said["start"] : said["end"]] == said["answer"] == said["answer"].strip() != ""


def test_predictions_do_not_depend_on_what_else_is_predicted():
    reader, model = a_reader(max_length=60), a_reading_model()
    given = rows([asked(None, context) for context in (CONTEXT, SENTENCES[3], CONTEXT + CONTEXT, SENTENCES[0])])
    together = reader.predict(model, given, tokens=128)
    for one, other in zip(together, [reader.predict(model, [row])[0] for row in given], strict=True):
        assert (one["answer"], one["start"], one["end"]) == (other["answer"], other["start"], other["end"])
        assert one["no_answer_probability"] == pytest.approx(other["no_answer_probability"], rel=1e-3)


def test_a_tiny_model_finds_a_planted_answer_in_a_long_context_and_says_where_there_is_none():
    # Two windows of each context.
    reader, model = a_reader(max_length=50), a_reading_model()
    answered = asked("서울은", question="the capital?")
    nothing = asked(None, question="small boat?")
    batch = reader.collate(reader.encode(rows([answered, nothing])), packed=False)
    assert len(batch.rows) > 3
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        losses = reader.loss_sums(model, batch)
        ((losses["start"] + losses["end"]) / len(batch.rows)).backward()
        optimizer.step()
    with torch.no_grad():
        assert reader.tallies(reader.outputs(model, batch), batch) == {"exact": (len(batch.rows), len(batch.rows))}
    found, none = reader.predict(model, rows([answered, nothing]))
    assert (found["answer"], found["start"]) == ("서울은", CONTEXT.index("서울은"))
    assert found["probability"] > 0.5 > found["no_answer_probability"]
    assert (none["answer"], none["start"], none["end"]) == ("", None, None)
    assert none["probability"] == none["no_answer_probability"] > 0.5
