import math

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lorakit.errors import LorakitError
from lorakit.generation.sampling import Draws, draw, keep_min_p, keep_top_k, keep_top_p, narrow, penalise_repetition
from lorakit.generation.settings import DecodingSettings

LOGITS_BV = 3 * torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
NO_IDS = torch.zeros(4, 1, dtype=torch.long)


def test_repetition_penalty_equals_that_of_transformers():
    seen = torch.tensor([[1, 2, 2, 7]] * 4)
    seen_BV = torch.zeros(4, 50, dtype=torch.bool).scatter(1, seen, True)
    expected = RepetitionPenaltyLogitsProcessor(1.4)(seen, LOGITS_BV.clone())
    assert torch.equal(penalise_repetition(LOGITS_BV, seen_BV, 1.4), expected)


@pytest.mark.parametrize("k", [1, 5, 50, 80])
def test_top_k_equals_that_of_transformers(k):
    assert torch.equal(keep_top_k(LOGITS_BV, k), TopKLogitsWarper(k)(NO_IDS, LOGITS_BV))


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9, 1.0])
def test_top_p_equals_that_of_transformers(p):
    assert torch.equal(keep_top_p(LOGITS_BV, p), TopPLogitsWarper(p)(NO_IDS, LOGITS_BV))


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 1.0])
def test_min_p_equals_that_of_transformers(p):
    assert torch.equal(keep_min_p(LOGITS_BV, p), MinPLogitsWarper(p)(NO_IDS, LOGITS_BV))


def test_narrowing_applies_temperature_then_k_then_p_then_min_p():
    expected = LOGITS_BV - LOGITS_BV.amax(dim=-1, keepdim=True)  # changes no probability
    for processor in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.9), MinPLogitsWarper(0.1)):
        expected = processor(NO_IDS, expected)
    settings = DecodingSettings(temperature=0.7, top_k=20, top_p=0.9, min_p=0.1)
    assert torch.equal(narrow(LOGITS_BV, settings), expected)


def test_a_draw_inverts_the_cumulative_distribution():
    logits_BV = torch.tensor([[0.5, 0.0, 0.3, 0.2]]).log()
    taken = [int(draw(logits_BV, [u])) for u in (0.0, 0.49, 0.51, 0.79, 0.81, math.nextafter(1, 0))]
    assert taken == [0, 0, 2, 2, 3, 3]


def test_a_token_that_was_narrowed_away_is_never_drawn():
    logits_BV = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert {int(draw(logits_BV, [u])) for u in (0.0, 0.5, math.nextafter(1, 0))} == {1}


def test_drawn_shares_approach_the_probabilities():
    logits_BV = torch.tensor([[0.5, 0.3, 0.2]]).log()
    numbers = Draws(0, 0, 0)
    rows = logits_BV.expand(4000, 3)
    shares = draw(rows, [numbers[place] for place in range(4000)]).bincount(minlength=3) / 4000
    # Four standard deviations of a share of 0.5 in 4000 draws.
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=4 * math.sqrt(0.25 / 4000))


@pytest.mark.parametrize("other", [(1, 2, 0), (0, 3, 0), (0, 2, 1)])
def test_the_stream_of_an_answer_depends_on_seed_prompt_and_sample(other):
    assert Draws(0, 2, 0)[0] == Draws(0, 2, 0)[0] != Draws(*other)[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"top_k": 5}, "top_k"),
        ({"top_p": 0.5}, "top_p"),
        ({"min_p": 0.5}, "min_p"),
        ({"num_samples": 2}, "num_samples"),
        ({"num_beams": 2, "temperature": 1.0}, "temperature"),
        ({"num_beams": 2, "num_samples": 2}, "num_samples"),
        ({"length_penalty": 2.0}, "length_penalty"),
        ({"stop": [""]}, "stop"),
        ({"temperature": -1.0}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"tempreture": 1.0}, "tempreture"),
    ],
)
def test_an_option_that_cannot_work_is_named(options, named):
    with pytest.raises(LorakitError, match=f"  {named} (is|has|holds) "):
        DecodingSettings(**options)


def test_all_faults_of_the_options_are_told_together():
    with pytest.raises(LorakitError, match=r"(?s)temperature is -1.*top_p is 2"):
        DecodingSettings(temperature=-1.0, top_p=2.0)


@pytest.mark.parametrize("temperature", [1e-20, 1e-38, 1e-45, 1e-300])
def test_next_to_no_temperature_draws_the_most_probable_token(temperature):
    logits_BV = narrow(LOGITS_BV, DecodingSettings(temperature=temperature))
    assert torch.equal(draw(logits_BV, [0.0, 0.3, 0.6, 0.999]), LOGITS_BV.argmax(dim=-1))
