"""Answers read again at once are scored as by plain transformers without a cache, token by token."""

import pytest
import torch
from tests.model_types import SHAPES, VOCABULARY, tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as WRITERS

from lorakit import families
from lorakit.errors import LorakitError
from lorakit.generation.decoding import decode
from lorakit.generation.encoded import decoder_start
from lorakit.generation.rereading import missed
from lorakit.generation.settings import DecodingSettings

ENCODER_DECODERS = [name for name in SHAPES if name in WRITERS]
TYPES = [name for name in SHAPES if families.of(name, (), {}).kind == "decoder"] + ENCODER_DECODERS
PROMPTS = [[5, 9, 33, 5, 9, 33, 5], [8, 9], [40], [11, 12, 13]]
ANSWERS = [[20, 3, 77, 8, 8, 41], [90], [7, 7, 7, 7, 7, 7, 7, 7, 12], [60, 2]]
SETTINGS = DecodingSettings(max_new_tokens=9)


def writer(model_type):
    return tiny_model(model_type, AutoModelForSeq2SeqLM if model_type in ENCODER_DECODERS else AutoModelForCausalLM)


def plain_scores(model, prompt, begun):
    """Scores of the token after `begun`, shape (V,)."""
    if model.config.is_encoder_decoder:
        written = torch.tensor([[decoder_start(model), *begun]])
        return model(input_ids=torch.tensor([prompt]), decoder_input_ids=written).logits[0, -1]
    return model(input_ids=torch.tensor([[*prompt, *begun]]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("model_type", TYPES)
def test_each_token_misses_as_much_as_plain_scores_say(model_type):
    model = writer(model_type)
    found = missed(model, PROMPTS, ANSWERS, SETTINGS, ())
    with torch.no_grad():
        for prompt, answer, missed_U in zip(PROMPTS, ANSWERS, found, strict=True):
            scores = [plain_scores(model, prompt, answer[:place]) for place in range(len(answer))]
            expected = [float(scores_V.max() - scores_V[token]) for scores_V, token in zip(scores, answer, strict=True)]
            torch.testing.assert_close(missed_U, torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["gpt2", "mistral", "t5", "bart"])
def test_a_greedy_answer_misses_nothing_and_one_with_another_token_does(model_type):
    model = writer(model_type)
    written = [list(answer.ids) for answer in decode(model, PROMPTS, SETTINGS, ())]
    assert all(float(missed_U.max()) < 1e-4 for missed_U in missed(model, PROMPTS, written, SETTINGS, ()))
    written[1][4] = (written[1][4] + 1) % VOCABULARY
    found = missed(model, PROMPTS, written, SETTINGS, ())
    assert [float(missed_U[:5].max()) > 1e-3 for missed_U in found] == [False, True, False, False]


def test_a_token_that_the_checkpoint_forbids_misses_without_bound():
    model = writer("bart")
    model.generation_config.suppress_tokens = [77]
    found = missed(model, PROMPTS[:1], ANSWERS[:1], SETTINGS, ())
    assert found[0].isinf().tolist() == [False, False, True, False, False, False]


def test_scores_that_are_not_finite_are_refused():
    model = writer("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[3] = torch.nan
    with pytest.raises(LorakitError, match="not finite"):
        missed(model, PROMPTS, ANSWERS, SETTINGS, ())
