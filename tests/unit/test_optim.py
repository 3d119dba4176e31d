"""The course of the learning rate against closed forms, and which weights decay."""

import math

import pytest
import torch

from conftest import tiny_gpt2, tiny_llama
from lorakit import families, methods
from lorakit.methods.settings import LoraSettings
from lorakit.training.optim import build, learning_rate_at
from lorakit.training.settings import AdafactorSettings, AdamWSettings, SgdSettings


def course(total, **settings):
    return [learning_rate_at(step, total, AdamWSettings(**settings), 1.0) for step in range(total)]


def test_a_constant_rate_is_constant():
    assert course(7, schedule="constant", warmup=0.0) == [1.0] * 7


def test_a_line_falls_by_equal_parts_towards_zero():
    assert course(4, schedule="linear", warmup=0.0) == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_cosine_starts_at_the_peak_and_is_half_in_the_middle():
    found = course(8, schedule="cosine", warmup=0.0)
    assert found == pytest.approx([math.cos(math.pi * step / 16) ** 2 for step in range(8)])
    assert found[4] == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_rises_in_equal_parts_and_never_starts_at_zero(schedule):
    found = course(40, schedule=schedule, warmup=0.1)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(found) == 1.0
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[-1] > 0


def test_a_single_step_is_taken_at_the_peak():
    assert course(1) == [1.0]


def groups_by_name(model, settings):
    names = {id(weight): name for name, weight in model.named_parameters()}
    return [
        (group["weight_decay"], sorted(names[id(weight)] for weight in group["params"]))
        for group in build(model, settings, 1e-3).param_groups
    ]


@pytest.mark.parametrize(
    "settings",
    [
        AdamWSettings(weight_decay=0.1),
        SgdSettings(weight_decay=0.1),
        AdafactorSettings(weight_decay=0.1, learning_rate=1e-3),
    ],
)
def test_matrices_decay_and_embeddings_biases_and_norms_do_not(settings):
    (rate, decayed), (none, rest) = groups_by_name(tiny_gpt2(), settings)
    assert (rate, none) == (0.1, 0.0)
    ends = {".".join(name.rsplit(".", 3)[1:]) for name in decayed}
    assert ends == {"attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"}
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.ln_1.weight"} <= set(rest)


def test_an_output_layer_of_its_own_decays():
    (_, decayed), (_, rest) = groups_by_name(tiny_llama(), AdamWSettings())
    assert "lm_head.weight" in decayed
    assert "model.embed_tokens.weight" in rest


def test_the_optimizer_holds_every_weight_that_learns_and_no_other():
    model, trainable = methods.load("lora")(tiny_gpt2(), LoraSettings(), families.of("gpt2"))
    held = [name for _, names in groups_by_name(model, AdamWSettings()) for name in names]
    assert sorted(held) == sorted(trainable.names)


def test_adamw_takes_the_step_of_its_paper():
    """Loshchilov & Hutter 2019, algorithm 2, two steps in float64 by hand."""
    layer = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -1.0]]))
    settings = AdamWSettings(weight_decay=0.1, beta1=0.8, beta2=0.9, epsilon=1e-6)
    optimizer = build(layer, settings, 0.01)
    gradients = [(0.3, -2.0), (-0.1, 0.7)]
    expected = []
    for index, weight in enumerate((0.5, -1.0)):
        mean = square = 0.0
        for step, gradient in enumerate((pair[index] for pair in gradients), 1):
            mean = 0.8 * mean + 0.2 * gradient
            square = 0.9 * square + 0.1 * gradient**2
            update = (mean / (1 - 0.8**step)) / (math.sqrt(square / (1 - 0.9**step)) + 1e-6)
            weight = weight - 0.01 * (update + 0.1 * weight)
        expected.append(weight)
    for pair in gradients:
        layer.weight.grad = torch.tensor([pair])
        optimizer.step()
    assert layer.weight.tolist()[0] == pytest.approx(expected, rel=1e-6)


def test_adafactor_takes_a_first_step_in_proportion_to_the_size_of_a_matrix():
    """Shazeer & Stern 2018, algorithm 5, first step: the moments are those of the gradient alone."""
    layer = torch.nn.Linear(3, 2, bias=False).double()
    before, gradient = layer.weight.detach().clone(), torch.tensor([[0.3, -2.0, 1.0], [0.1, 0.4, -0.7]]).double()
    rows, columns = gradient.square().mean(1, keepdim=True), gradient.square().mean(0, keepdim=True)
    update = gradient / (rows * columns / rows.mean()).sqrt()
    update = update / max(1.0, float(update.square().mean().sqrt()))
    layer.weight.grad = gradient
    build(layer, AdafactorSettings(learning_rate=0.01), 0.01).step()
    expected = before - 0.01 * float(before.square().mean().sqrt()) * update
    assert torch.allclose(layer.weight, expected, rtol=1e-5)
