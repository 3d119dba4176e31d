import pytest
import torch

from conftest import tiny_gpt2, tiny_llama
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings

MODELS = {"gpt2": tiny_gpt2, "llama": tiny_llama}
PROMPT = [5, 17, 200, 33, 17]


def by_transformers(model, prompt, **options):
    ids = torch.tensor([prompt])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **options)
    return tuple(written[0, len(prompt) :].tolist())


def by_lorakit(model, prompt, eos_ids, **options):
    return decode(model, [prompt], DecodingSettings(**options), eos_ids)[0]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_ids_equal_those_of_transformers(name):
    model = MODELS[name]()
    assert by_lorakit(model, PROMPT, (), max_new_tokens=40).ids == by_transformers(
        model, PROMPT, max_new_tokens=40, eos_token_id=None
    )


@pytest.mark.parametrize("name", MODELS)
def test_greedy_ids_equal_those_of_transformers_under_a_repetition_penalty(name):
    model = MODELS[name]()
    plain = by_transformers(model, PROMPT, max_new_tokens=40, eos_token_id=None)
    expected = by_transformers(model, PROMPT, max_new_tokens=40, eos_token_id=None, repetition_penalty=1.7)
    assert expected != plain
    assert by_lorakit(model, PROMPT, (), max_new_tokens=40, repetition_penalty=1.7).ids == expected


@pytest.mark.parametrize("name", MODELS)
def test_greedy_ends_at_the_same_end_of_sequence_token(name):
    model = MODELS[name]()
    eos = by_transformers(model, PROMPT, max_new_tokens=12, eos_token_id=None)[6]
    written = by_lorakit(model, PROMPT, {eos, 399}, max_new_tokens=40)
    assert written.ids == by_transformers(model, PROMPT, max_new_tokens=40, eos_token_id=[eos, 399])
    assert written.finish_reason == "eos"


@pytest.mark.parametrize("name", MODELS)
def test_the_log_probability_is_that_of_one_plain_forward(name):
    model = MODELS[name]()
    written = by_lorakit(model, PROMPT, (), max_new_tokens=20)
    ids = torch.tensor([[*PROMPT, *written.ids]])
    with torch.inference_mode():
        scores = model(ids).logits[0, len(PROMPT) - 1 : -1].double().log_softmax(-1)
    expected = scores.gather(1, ids[0, len(PROMPT) :, None]).sum()
    assert written.log_probability == pytest.approx(float(expected), abs=1e-4)
