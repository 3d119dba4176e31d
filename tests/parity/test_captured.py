"""Steps over fixed buffers, as a processor takes them: the text of plain ones, and fit to be captured."""

import pytest
import torch
from tests.model_types import SHAPES, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from conftest import tiny_gpt2, tiny_llama
from lorakit import families
from lorakit.generation import captured
from lorakit.generation.caching import FixedLayer
from lorakit.generation.captured import CapturedContext, CapturedSteps, prove
from lorakit.generation.context import Context
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings
from lorakit.generation.speculation import PromptLookup

PROMPTS = [[5, 9, 33, 5, 9, 33, 5], [8, 9], [40, 41, 42, 43], [11], [7, 7, 9], [12, 13, 14, 15, 16]]
CHOICES = {
    "greedy": {},
    "drawn": {"temperature": 1.0, "top_p": 0.9, "num_samples": 2, "repetition_penalty": 1.3, "seed": 3},
}
REASONS = {
    "gpt_neo": "takes no buffers of fixed size",
    "bloom": "refuses it",
    "mistral": "attends through a window",
    "gemma2": "attends through a window",
    "gemma3_text": "attends through a window",
    "t5": "an encoder-decoder",
}
DECODERS = [name for name in SHAPES if families.of(name, (), {}).kind == "decoder"]


def proved(model):
    steps, reason = prove(model)
    assert reason == ""
    return steps


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    ("model_type", "attention"),
    [*((name, "sdpa") for name in DECODERS if name not in REASONS), ("gpt2", "eager"), ("llama", "eager")],
)
def test_padded_rows_that_end_and_join_get_the_text_of_plain_steps(model_type, attention, choice):
    model = tiny_model(model_type, AutoModelForCausalLM, attention)
    settings = DecodingSettings(max_new_tokens=20, **CHOICES[choice])
    endless = decode(model, PROMPTS, settings, ())
    batch = {"eos_ids": {endless[0].ids[9], endless[2].ids[4]}, "at_once": [3] * len(PROMPTS)}
    plain = decode(model, PROMPTS, settings, **batch)
    found = decode(model, PROMPTS, settings, **batch, steps=proved(model))
    assert len({len(answer.ids) for answer in plain}) > 1
    assert [answer.ids for answer in found] == [answer.ids for answer in plain]
    assert [answer.log_probability for answer in found] == pytest.approx(
        [answer.log_probability for answer in plain], abs=1e-3
    )


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_full_buffers_are_exchanged_for_larger_ones(make, monkeypatch):
    monkeypatch.setattr(captured, "_LEAST_CAPACITY", 4)
    model = make()
    settings = DecodingSettings(max_new_tokens=30)
    plain = decode(model, PROMPTS[:3], settings, ())
    assert [answer.ids for answer in decode(model, PROMPTS[:3], settings, (), steps=proved(model))] == [
        answer.ids for answer in plain
    ]


def test_batches_of_like_size_share_a_step(monkeypatch):
    made = []
    build = captured.Step.__init__
    monkeypatch.setattr(captured.Step, "__init__", lambda self, *given: (made.append(1), build(self, *given))[1])
    model = tiny_gpt2()
    steps = CapturedSteps(model)
    for prompts in (PROMPTS[:4], PROMPTS[:3], PROMPTS[2:6]):
        decode(model, prompts, DecodingSettings(max_new_tokens=8), (), steps=steps)
    assert len(made) == 1


def test_rows_are_copied_only_when_one_ends(monkeypatch):
    entered = []
    enter = CapturedSteps.enter
    monkeypatch.setattr(CapturedSteps, "enter", lambda self, *given: (entered.append(1), enter(self, *given))[1])
    model = tiny_gpt2()
    settings = DecodingSettings(max_new_tokens=20)
    endless = decode(model, PROMPTS[:3], settings, ())
    answers = decode(model, PROMPTS[:3], settings, {endless[0].ids[9]}, steps=CapturedSteps(model))
    assert len(entered) == len({len(answer.ids) for answer in answers}) > 1


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
@torch.inference_mode()
def test_contexts_that_share_steps_read_like_plain_ones(make):
    model = make()
    steps = CapturedSteps(model)

    def scores(context_of):
        one, other = context_of(PROMPTS[:3]), context_of(PROMPTS[3:])
        yield from (one.read_prompts(), other.read_prompts())
        tokens_B1 = torch.tensor([[5], [6], [7]])
        # By turns, which moves both in and out of the memory.
        yield from (context.read(tokens_B1) for context in (one, other, one))
        one.forget(1)
        yield one.read(tokens_B1 + 3)
        one.select([2, 0])
        yield one.read(tokens_B1[:2])
        yield one.read(torch.tensor([[8, 9], [10, 11]]))
        yield one.read(tokens_B1[:2])
        yield other.read(tokens_B1)
        other.join(one)
        yield other.read(torch.tensor([[1], [2], [3], [4], [5]]))

    plain = scores(lambda prompts: Context(model, prompts))
    fixed = scores(lambda prompts: CapturedContext(model, prompts, steps))
    for expected, found in zip(plain, fixed, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_drafts_beside_fixed_buffers_leave_the_text():
    model, settings = tiny_gpt2(), DecodingSettings(max_new_tokens=40)
    drafter = PromptLookup()
    (plain,) = decode(model, PROMPTS[:1], settings, ())
    (found,) = decode(model, PROMPTS[:1], settings, (), drafter=drafter, steps=proved(model))
    assert found.ids == plain.ids
    assert drafter.kept > 0


class _Operations(TorchDispatchMode):
    """Writes down what is launched: names, shapes, and numbers that are no tensors."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = tree_map(lambda value: value.shape if isinstance(value, torch.Tensor) else value, (args, kwargs))
        self.seen.append((str(function), str(given)))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
@torch.inference_mode()
def test_every_step_launches_the_same_operations_and_looks_at_no_value(make):
    model = make()
    context = CapturedContext(model, PROMPTS[:3], proved(model))
    context.read_prompts()
    launched = []
    for token in (5, 6, 7):
        context.read(torch.full((3, 1), token))
        with _Operations() as operations:
            context._step()
        launched.append(operations.seen)
    assert launched[0] == launched[1] == launched[2]
    names = " ".join(name for name, _ in launched[0])
    # A value that is looked at, and a number that is carried from the host: a capture takes neither.
    assert "_local_scalar_dense" not in names
    assert "lift_fresh" not in names
    assert "index_copy_" in names


@pytest.mark.parametrize("model_type", REASONS)
def test_types_that_take_no_fixed_buffers_are_refused_with_a_reason(model_type):
    auto = AutoModelForSeq2SeqLM if model_type == "t5" else AutoModelForCausalLM
    steps, reason = prove(tiny_model(model_type, auto))
    assert steps is None
    assert REASONS[model_type] in reason


def test_buffers_that_lose_what_was_read_are_found_out(monkeypatch):
    monkeypatch.setattr(FixedLayer, "update", lambda self, *_: (self.keys, self.values))
    steps, reason = prove(tiny_gpt2())
    assert steps is None
    assert reason.startswith("scores differ by")
