"""Every type of the table that writes: with the fast paths the text of the plain ones."""

import copy

import pytest
from tests.model_types import SHAPES, tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as WRITERS

from lorakit import families
from lorakit.fast import activations, products
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings
from lorakit.generation.speculation import PromptLookup, RoundedDrafts

ENCODER_DECODERS = [name for name in SHAPES if name in WRITERS]
TYPES = [name for name in SHAPES if families.of(name, (), {}).kind == "decoder"] + ENCODER_DECODERS
PROMPTS = [[5, 9, 33, 5, 9, 33, 5], [8, 9], [40, 41, 42, 43], [11, 12, 13]]
SETTINGS = DecodingSettings(max_new_tokens=20)


def written(model, ends, **options):
    return [answer.ids for answer in decode(model, PROMPTS, SETTINGS, ends, **options)]


@pytest.mark.parametrize("model_type", TYPES)
def test_the_fast_paths_write_what_the_plain_ones_do(model_type, monkeypatch):
    auto = AutoModelForSeq2SeqLM if model_type in ENCODER_DECODERS else AutoModelForCausalLM
    plain = tiny_model(model_type, auto)
    endless = written(plain, ())
    # Some answers end early, so that others take their places.
    ends = {endless[0][12], endless[1][5]}
    expected = written(plain, ends, at_once=[1] * len(PROMPTS))
    fast = copy.deepcopy(plain)
    activations.fuse(fast)
    monkeypatch.setattr(products, "_onednn_is_faster", lambda dtype: True)
    assert products.take(fast) == "products through oneDNN"
    assert written(fast, ends, at_once=[2] * len(PROMPTS)) == expected
    drafter = RoundedDrafts(fast)
    drafter.WARM = 0
    for one in (drafter, PromptLookup()):
        assert written(fast, ends, at_once=[1] * len(PROMPTS), drafter=one) == expected
