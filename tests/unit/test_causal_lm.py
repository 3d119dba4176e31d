"""Labels by position, the shift, rows that are too long, and documents in windows."""

import numpy as np
import pytest
import torch

from conftest import tiny_gpt2, tiny_tokenizer
from lorakit.errors import DataError
from lorakit.objectives.causal_lm import IGNORED
from runs import objective, random_examples, rows

SHORT = {"prompt": "name: Elm", "completion": "Elm lies north."}
LONG_PROMPT = {"prompt": "name: Elm | area: north. " * 6, "completion": "Elm."}
LONG_ANSWER = {"prompt": "name", "completion": "The quick brown fox jumps over the lazy dog. " * 6}


def learned(example):
    return [int(label) for label in example.labels if label != IGNORED]


def test_labels_are_the_ids_of_the_answer_at_their_own_positions():
    learner = objective()
    (example,) = learner.encode(rows([SHORT]))
    prompt = learner.encoder.prompts([SHORT["prompt"]])[0]
    answer = learner.encoder.answers([SHORT["completion"]])[0]
    assert example.ids.tolist() == prompt + answer
    assert example.labels.tolist() == [IGNORED] * len(prompt) + answer


def test_the_loss_is_the_hand_written_sum_over_the_token_before_each_label():
    model, learner = tiny_gpt2(), objective()
    (example,) = random_examples([12])
    with torch.no_grad():
        found = learner.loss_sums(model, learner.collate([example], packed=False))["tokens"]
        logits = model(input_ids=torch.tensor(example.ids.tolist())[None]).logits[0].double().numpy()
    expected = 0.0
    for position in range(1, 12):
        if example.labels[position] != IGNORED:
            scores = logits[position - 1]
            expected += float(np.log(np.exp(scores).sum()) - scores[example.labels[position]])
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_the_first_token_of_a_row_is_never_a_target():
    learner = objective()
    examples = random_examples([6, 7])
    for example in examples:
        example.labels[:] = example.ids
    for packed in (True, False):
        batch = learner.collate(examples, packed=packed)
        assert learner.counts(batch) == {"tokens": 5 + 6}
        assert batch.targets["targets_L"].tolist() == [*examples[0].ids[1:].tolist(), *examples[1].ids[1:].tolist()]


def test_prompts_are_learned_too_when_asked():
    learner = objective(train_on_prompt=True)
    (example,) = learner.encode(rows([SHORT]))
    assert learned(example) == example.ids.tolist()


def test_rows_that_are_too_long_stop_everything_and_are_named():
    learner = objective(max_length=40)
    with pytest.raises(DataError) as caught:
        learner.encode(rows([SHORT, LONG_PROMPT, SHORT, LONG_ANSWER]))
    said = str(caught.value)
    assert said.startswith("2 rows are longer than max_length 40: rows.jsonl line 2 (")
    assert "rows.jsonl line 4 (" in said
    assert "too_long=drop" in said


def test_rows_that_are_too_long_are_left_out_and_counted():
    learner = objective(max_length=40, too_long="drop")
    kept = learner.encode(rows([SHORT, LONG_PROMPT, SHORT, LONG_ANSWER]), first=10)
    assert [example.row for example in kept] == [10, 12]
    assert learner.notes == ["2 rows longer than 40 tokens: left out"]


@pytest.mark.parametrize("train_on_prompt", [False, True])
def test_a_prompt_is_cut_at_its_start_and_the_answer_stays_whole(train_on_prompt):
    learner = objective(max_length=40, too_long="truncate_prompt", train_on_prompt=train_on_prompt)
    whole = objective(max_length=10**6, train_on_prompt=train_on_prompt)
    (example,), (uncut,) = learner.encode(rows([LONG_PROMPT])), whole.encode(rows([LONG_PROMPT]))
    assert len(example) == 40
    assert example.ids.tolist() == uncut.ids[-40:].tolist()
    assert example.labels.tolist() == uncut.labels[-40:].tolist()
    assert learner.notes == ["1 row longer than 40 tokens: cut at the start of the prompt"]


def test_an_answer_is_never_cut():
    learner = objective(max_length=40, too_long="truncate_prompt")
    with pytest.raises(DataError, match=r"rows\.jsonl line 1 \(\d+ tokens, \d+ of them learned\)"):
        learner.encode(rows([LONG_ANSWER]))


def test_a_chat_is_cut_before_its_first_answer_alone():
    turns = [
        {"role": "user", "content": LONG_PROMPT["prompt"]},
        {"role": "assistant", "content": "Elm."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "North."},
    ]
    learner = objective("chat", max_length=64, too_long="truncate_prompt")
    (example,) = learner.encode(rows([{"messages": turns}]))
    assert len(example) == 64
    assert tiny_tokenizer().decode(learned(example)) == "Elm.<|endoftext|>North.<|endoftext|>"


@pytest.mark.parametrize("max_length", [2, 3, 7, 16, 1000])
def test_a_long_document_is_learned_once_token_by_token(max_length):
    learner = objective("text", max_length=max_length)
    text = "Once upon a time there was a small model that wanted to speak. 서울은 대한민국의 수도이다."
    ids = learner.encoder.documents([text])[0]
    windows = learner.encode(rows([{"text": text}]))
    assert all(len(window) <= max_length for window in windows)
    batches = [learner.collate([window], packed=True) for window in windows]
    assert [int(one) for batch in batches for one in batch.targets["targets_L"]] == ids[1:]
    for window in windows:
        assert window.labels[0] == IGNORED


def test_padding_carries_no_label_and_no_attention():
    learner = objective()
    batch = learner.collate(random_examples([4, 9]), packed=False)
    assert batch.inputs["attention_mask"].tolist() == [[1] * 4 + [0] * 5, [1] * 9]
    flat = batch.inputs["attention_mask"].reshape(-1)
    assert flat[batch.targets["positions_L"]].all()
    assert flat[batch.targets["positions_L"] + 1].all()
    assert batch.tokens == 13


def test_a_packed_batch_starts_positions_anew_in_each_row():
    batch = objective().collate(random_examples([3, 4]), packed=True)
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    assert batch.lengths == (3, 4)
