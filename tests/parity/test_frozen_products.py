"""Frozen products through oneDNN beside what learns: numbers and gradients of float64, PEFT's names, the same run."""

import copy
import gc
import os
import signal
import weakref

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from conftest import tiny_gpt2, tiny_llama
from lorakit.errors import Interrupted
from lorakit.fast import compiled, frozen
from lorakit.fast.products import through_onednn
from lorakit.training.events import StepEvent
from runs import Listener, train, weights

try:
    through_onednn(torch.ones(1, 1), torch.ones(1, 1), None)
except (AttributeError, RuntimeError) as problem:
    pytest.skip(f"no door to oneDNN in this torch ({problem})", allow_module_level=True)

EXACT = {"train__dtype": "float32", "optim__learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def slow_blas(monkeypatch):
    """A processor on which oneDNN is the faster way, whatever this one is."""
    monkeypatch.setattr(frozen, "_is_faster", lambda: True)


@pytest.fixture
def calls(monkeypatch):
    """Inputs of all products that went through oneDNN."""
    seen = []
    monkeypatch.setattr(frozen, "through_onednn", lambda x, *given: seen.append(x.shape) or through_onednn(x, *given))
    return seen


def layers():
    torch.manual_seed(0)
    made = {"linear": nn.Linear(24, 40), "bare": nn.Linear(24, 40, bias=False), "conv": Conv1D(40, 24)}
    return nn.ModuleDict(made).requires_grad_(False)


def exact(layer, x):
    weight = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
    bias = 0 if layer.bias is None else layer.bias.double()
    return x.double() @ weight.double().t() + bias


@pytest.mark.parametrize("name", ["linear", "bare", "conv"])
@pytest.mark.parametrize("shape", [(64, 24), (1, 128, 24), (2, 64, 24)])
def test_a_product_and_its_slope_are_those_of_float64(calls, name, shape):
    model = layers()
    x = torch.randn(*shape, requires_grad=True)
    expected = exact(model[name], x)
    assert frozen.take(model) == 3
    found = model[name](x)
    above = torch.randn_like(found)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    slopes = [torch.autograd.grad(value, x, above.to(value.dtype))[0] for value in (found, expected)]
    assert torch.allclose(*slopes, atol=1e-5)
    assert len(calls) == 2


def test_no_input_is_kept_for_the_backward_pass():
    model = layers()
    frozen.take(model)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        model["linear"](torch.randn(64, 24, requires_grad=True))
    assert [tensor.data_ptr() for tensor in kept] == [model["linear"].weight.data_ptr()]


def test_sizes_that_nobody_rounded_take_the_plain_way(calls):
    model = layers()
    x = torch.randn(3, 21, 24)
    plain = model["conv"](x)
    frozen.take(model)
    assert torch.equal(model["conv"](x), plain)
    assert not calls


def test_only_frozen_float32_layers_are_taken():
    model = layers()
    model["linear"].bias.requires_grad_(True)
    model["bare"].bfloat16()
    assert frozen.take(model) == 1
    assert "forward" in vars(model["conv"])


def test_weights_that_are_changed_in_place_or_moved_count():
    model = layers()
    frozen.take(model)
    x = torch.randn(64, 24)
    model["linear"].weight.data = model["linear"].weight.data * 2
    model["conv"].weight = nn.Parameter(torch.zeros(24, 40))
    assert torch.allclose(model["linear"](x).double(), exact(model["linear"], x), atol=1e-5)
    assert torch.equal(model["conv"](x), model["conv"].bias.expand(64, 40))


def test_a_layer_is_let_go_at_once():
    model = layers()
    frozen.take(model)
    seen = weakref.ref(model["linear"])
    gc.disable()
    try:
        del model
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_lora_of_peft_around_it_has_the_gradients_it_had_and_merges_as_before(calls, make):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = make()
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    names = list(model.state_dict())
    ids = torch.randint(0, 400, (2, 32))
    learned = [weight for weight in model.parameters() if weight.requires_grad]

    def gradients():
        return torch.autograd.grad(model(input_ids=ids).logits.square().mean(), learned)

    expected = gradients()
    assert frozen.take(model) > 0
    found = gradients()
    assert calls
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)
    assert list(model.state_dict()) == names
    with torch.no_grad():
        apart = model(input_ids=ids).logits
        merged = model.merge_and_unload()(input_ids=ids).logits
    assert torch.allclose(merged, apart, atol=1e-4)


@pytest.mark.parametrize("method", ["lora", "head", "freeze"])
def test_a_run_takes_it_says_so_and_is_read_back_exactly(tmp_path, calls, gpt2_folder, pairs_file, method):
    settings = {"method": method, **EXACT}
    fast = train(tmp_path / "fast", gpt2_folder, pairs_file, **settings)
    assert calls
    assert fast.prepared.built.taken == ("activations", "logits", "products")
    assert fast.finished.difference == 0.0
    calls.clear()
    plain = train(tmp_path / "plain", gpt2_folder, pairs_file, speed__products=False, **settings)
    assert not calls
    assert "products" not in plain.prepared.built.taken
    assert fast.state.best_loss == pytest.approx(plain.state.best_loss, rel=1e-5)


def test_a_resumed_run_is_the_same_run_to_the_bit(tmp_path, gpt2_folder, pairs_file):
    settings = {**EXACT, "train__rows_per_step": 8}
    whole = train(tmp_path / "whole", gpt2_folder, pairs_file, **settings).folder

    def stop(event):
        if isinstance(event, StepEvent):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "run", gpt2_folder, pairs_file, reporters=[Listener(stop)], **settings)
    resumed = train(tmp_path / "run", resume=True)
    assert "products" in resumed.prepared.built.taken
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(resumed.folder).items())


@pytest.mark.parametrize("settings", [{"train__dtype": "bfloat16"}, {"method": "full"}, {"speed__varlen": False}])
def test_where_nothing_fits_it_is_not_taken(tmp_path, calls, gpt2_folder, pairs_file, settings):
    result = train(tmp_path / "run", gpt2_folder, pairs_file, **{**EXACT, **settings})
    assert "products" not in result.prepared.built.taken
    assert not calls


def test_blocks_that_are_compiled_keep_their_own_products(tmp_path, monkeypatch, calls, gpt2_folder, pairs_file):
    monkeypatch.setattr(compiled.take, "__defaults__", ("eager",))
    result = train(tmp_path / "run", gpt2_folder, pairs_file, speed__compile=True, **EXACT)
    assert "products" not in result.prepared.built.taken
    assert not calls


def test_the_loss_in_parts_multiplies_as_its_layer_does(tmp_path, monkeypatch, calls, gpt2_folder, pairs_file):
    from lorakit.fast import logits

    monkeypatch.setattr(logits, "_rows", lambda _: 64)
    settings = {**EXACT, "train__rows_per_step": 16}
    parts = train(tmp_path / "parts", gpt2_folder, pairs_file, **settings).folder
    # All other layers see rows of a batch.
    assert any(len(shape) == 2 for shape in calls)
    plain = train(tmp_path / "plain", gpt2_folder, pairs_file, speed__products=False, **settings).folder
    expected = weights(plain)
    for name, tensor in weights(parts).items():
        assert torch.allclose(tensor, expected[name], atol=1e-4), name


def test_the_choice_is_one_of_the_processor_and_of_torch(monkeypatch):
    monkeypatch.undo()
    for vendor, capability, expected in (
        ("AuthenticAMD", "AVX512", torch.backends.mkl.is_available()),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
    ):
        monkeypatch.setattr(frozen.Path, "read_text", lambda *_, vendor=vendor, **__: f"vendor_id\t: {vendor}\n")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert frozen._is_faster() == expected


def test_a_copy_of_a_model_multiplies_by_its_own_weights(calls):
    model, x = layers(), torch.randn(64, 24)
    frozen.take(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.mul_(2)
    for name, layer in model.items():
        assert torch.allclose(copied[name](x), 2 * layer(x), atol=1e-5)
    assert copied.double()["linear"](x.double()).dtype == torch.float64
