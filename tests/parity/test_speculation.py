"""Drafts change the time and not the text, whoever writes them and however tokens are chosen."""

import pytest
import torch
from tests.writers import tiny_writer

from conftest import tiny_gpt2, tiny_llama
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings
from lorakit.generation.speculation import LONGEST, Drafter, PromptLookup, RoundedDrafts
from lorakit.workflows.generating import open_writer
from lorakit.workflows.speeding import FastPaths

MODELS = {
    "gpt2": tiny_gpt2,
    "llama": tiny_llama,
    "t5": lambda: tiny_writer("t5"),
    "bart": lambda: tiny_writer("bart"),
}
PROMPT = [5, 17, 33, 44, 5, 17, 33, 44, 5, 17]
CHOICES = {
    "greedy": {},
    "drawn": {"temperature": 0.3, "top_p": 0.9, "seed": 7},
    "penalised": {"repetition_penalty": 1.3},
}


class Oracle(Drafter):
    """Knows the text that comes without drafts; `wrong` says at which places it drafts another token."""

    def __init__(self, ids, wrong):
        self._ids, self._wrong = ids, wrong

    def draft(self, context, read, count, choose):
        done = len(read) - len(PROMPT)
        ahead = enumerate(self._ids[done : done + count], done)
        return [(token + 1) % 400 if self._wrong(place) else token for place, token in ahead]


def prompt_lookup(model):
    return PromptLookup()


def rounded(model):
    drafter = RoundedDrafts(model)
    drafter.WARM = 0
    return drafter


@pytest.mark.parametrize("make_drafter", [prompt_lookup, rounded])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", MODELS)
def test_text_with_drafts_is_the_text_without(name, choice, make_drafter):
    model = MODELS[name]()
    settings = DecodingSettings(max_new_tokens=40, **CHOICES[choice])
    (plain,) = decode(model, [PROMPT], settings, {1})
    drafter = make_drafter(model)
    (drafted,) = decode(model, [PROMPT], settings, {1}, drafter=drafter)
    assert drafted.ids == plain.ids
    assert drafted.finish_reason == plain.finish_reason
    assert drafted.log_probability == pytest.approx(plain.log_probability, abs=1e-3)


@pytest.mark.parametrize("wrong", [lambda place: False, lambda place: place % 3 == 0, lambda place: True])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_right_drafts_are_kept_and_wrong_ones_leave_no_trace(name, wrong):
    model = MODELS[name]()
    settings = DecodingSettings(max_new_tokens=31)
    (plain,) = decode(model, [PROMPT], settings, ())
    drafter = Oracle(plain.ids, wrong)
    assert decode(model, [PROMPT], settings, (), drafter=drafter)[0].ids == plain.ids
    if not any(map(wrong, range(31))):
        assert drafter.kept == drafter.drafted == 25
    if all(map(wrong, range(31))):
        assert drafter.kept == 0 < drafter.drafted


def test_a_look_up_proposes_what_followed_the_longest_match():
    def drafts(read, count=LONGEST):
        return PromptLookup().draft(None, read, count, None)

    # 2 3 stood before 9 first, 3 alone before 7 later: the longer match counts.
    assert drafts([1, 2, 3, 9, 8, 3, 7, 2, 3], 2) == [9, 8]
    # Of matches of the same length the latest one.
    assert drafts([3, 4, 3, 5, 6, 3], 1) == [5]
    assert drafts([1, 2, 3]) == []


def test_drafts_of_a_sliding_window_are_not_asked_for():
    from tests.parity.test_batched_equals_one_by_one import tiny_mistral

    class Forbidden(Drafter):
        def draft(self, *_):
            raise AssertionError

    (answer,) = decode(tiny_mistral(), [PROMPT], DecodingSettings(max_new_tokens=8), (), drafter=Forbidden())
    assert len(answer.ids) == 8


def test_rounded_drafts_are_given_up_where_they_are_wrong():
    model = tiny_gpt2()
    drafter = rounded(model)
    drafter.drafted, drafter.kept = 50, 19
    decode(model, [PROMPT], DecodingSettings(max_new_tokens=12), (), drafter=drafter)
    assert drafter.drafted == 50


@torch.no_grad()
def test_a_draft_leaves_the_exact_weights_in_place():
    model = tiny_gpt2()
    before = model(torch.tensor([PROMPT])).logits
    decode(model, [PROMPT], DecodingSettings(max_new_tokens=12), (), drafter=rounded(model))
    assert torch.equal(model(torch.tensor([PROMPT])).logits, before)


@pytest.fixture
def writer():
    return open_writer("tiny-gpt", device="cpu", dtype="float32")


def test_a_writer_that_is_put_in_8_bits_after_drafts_were_prepared_writes_on(writer, monkeypatch):
    """What is rounded has no weights of its own any more, of which drafts could be made."""
    monkeypatch.setattr(RoundedDrafts, "WARM", 0)
    writer.paths = FastPaths(drafter=RoundedDrafts(writer.model))
    writer.quantize(["Once"])
    assert len(writer.write(["Once"], DecodingSettings(max_new_tokens=8))[0].ids) > 1


def test_a_writer_in_8_bits_keeps_drafts_from_the_prompt(writer):
    writer.paths = FastPaths(drafter=PromptLookup())
    writer.quantize(["Once"])
    assert isinstance(writer.paths.drafter, PromptLookup)
