"""GELU in one kernel: the numbers and gradients of the closed form, in place of the stepwise one wherever it stands."""

import math

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
from transformers.activations import NewGELUActivation

from lorakit.fast import activations
from model_types import tiny_config, tiny_model


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = NewGELUActivation()


def closed_form(x):
    """GELU and its derivative in float64, with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    x = x.double()
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    tanh = torch.tanh(inner)
    return 0.5 * x * (1 + tanh), 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * slope


def test_the_kernel_gives_the_closed_form_and_its_derivative():
    holder = Holder()
    assert activations.fuse(holder) == 1
    x = torch.linspace(-6, 6, 241, requires_grad=True)
    value, slope = closed_form(x.detach())
    found = holder.act(x)
    found.sum().backward()
    assert torch.allclose(found.double(), value, atol=2e-6)
    assert torch.allclose(x.grad.double(), slope, atol=2e-6)


def test_under_bfloat16_the_kernel_is_nearer_to_the_closed_form_than_the_steps():
    holder, plain = Holder(), NewGELUActivation()
    activations.fuse(holder)
    x = torch.linspace(-6, 6, 2001).bfloat16()
    value, _ = closed_form(x)
    wrong = [float((act(x).double() - value).abs().mean()) for act in (holder.act, plain)]
    assert wrong[0] < 0.8 * wrong[1]


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neo", "phi"])
def test_models_that_take_gelu_step_by_step_score_as_before(model_type):
    model = tiny_model(model_type, AutoModelForCausalLM, "eager")
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        names = list(model.state_dict())
        assert activations.fuse(model) == 2
        assert list(model.state_dict()) == names
        assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-5)


def test_a_gated_t5_and_an_albert_have_it_too():
    config = tiny_config("t5")
    config.feed_forward_proj, config.is_gated_act, config.dense_act_fn = "gated-gelu", True, "gelu_new"
    assert activations.fuse(AutoModelForSeq2SeqLM.from_config(config)) == 4
    assert activations.fuse(tiny_model("albert", AutoModelForMaskedLM, "eager")) >= 1


def test_a_bert_keeps_its_own():
    assert activations.fuse(tiny_model("bert", AutoModelForMaskedLM, "eager")) == 0
