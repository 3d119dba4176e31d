import pytest
import torch

from conftest import tiny_gpt2, tiny_llama
from lorakit.generation.beams import beam_search
from lorakit.generation.settings import DecodingSettings

MODELS = {"gpt2": tiny_gpt2, "llama": tiny_llama}
PROMPT = [5, 17, 200, 33, 17]


def by_transformers(model, eos_ids, **options):
    ids = torch.tensor([PROMPT])
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        pad_token_id=399,
        eos_token_id=list(eos_ids) or None,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    return written.sequences[0, len(PROMPT) :].tolist(), float(written.sequences_scores[0])


@pytest.mark.parametrize("length_penalty", [None, 0.0, 2.0, -1.0])
@pytest.mark.parametrize("beams", [2, 5])
@pytest.mark.parametrize("ends", [0, 1, 40])
@pytest.mark.parametrize("name", MODELS)
def test_the_beam_kept_equals_that_of_transformers(name, ends, beams, length_penalty):
    model = MODELS[name]()
    eos_ids = range(1, 1 + ends)
    options = {} if length_penalty is None else {"length_penalty": length_penalty}
    expected, score = by_transformers(model, eos_ids, num_beams=beams, max_new_tokens=15, **options)
    settings = DecodingSettings(num_beams=beams, max_new_tokens=15, **options)
    written = beam_search(model, PROMPT, settings, eos_ids)
    assert list(written.ids) == expected
    power = 1.0 if length_penalty is None else length_penalty
    # The sums are compared: a penalty below 0 multiplies the score, and its rounding, by the length.
    assert written.log_probability == pytest.approx(score * len(written.ids) ** power, abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_beam_kept_equals_that_of_transformers_under_a_repetition_penalty(name):
    model = MODELS[name]()
    options = {"num_beams": 3, "max_new_tokens": 15, "repetition_penalty": 1.5}
    expected, _ = by_transformers(model, [7], **options)
    assert list(beam_search(model, PROMPT, DecodingSettings(**options), [7]).ids) == expected


def test_the_cases_above_end_early_and_late():
    # Guards the parity cases: with 40 end tokens the search stops inside, with none at the limit.
    model = tiny_gpt2()
    reasons = {
        beam_search(model, PROMPT, DecodingSettings(num_beams=2, max_new_tokens=15), range(1, 1 + ends)).finish_reason
        for ends in (0, 40)
    }
    assert reasons == {"eos", "length"}
