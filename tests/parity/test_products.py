"""Matrix products through other kernels: the numbers of float32, near ones in 8 bits, the text of transformers."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from conftest import tiny_gpt2, tiny_llama
from lorakit.fast import products
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings


@pytest.fixture
def through_onednn(monkeypatch):
    """Take oneDNN whatever the clock says."""
    monkeypatch.setattr(products, "_onednn_is_faster", lambda dtype: True)


def layers():
    torch.manual_seed(0)
    return nn.ModuleDict({"linear": nn.Linear(24, 40), "bare": nn.Linear(24, 40, bias=False), "conv": Conv1D(40, 24)})


def exact(layer, x):
    weight = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
    bias = 0 if layer.bias is None else layer.bias.double()
    return x.double() @ weight.double().t() + bias


@pytest.mark.parametrize("name", ["linear", "bare", "conv"])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 3, 24)])
@torch.no_grad()
def test_a_product_through_onednn_is_that_of_float64(through_onednn, name, shape):
    model = layers()
    x = torch.randn(*shape)
    expected = exact(model[name], x)
    assert products.take(model) == "products through oneDNN"
    assert torch.allclose(model[name](x).double(), expected, atol=1e-5)


@torch.no_grad()
def test_names_and_shapes_of_weights_stay(through_onednn):
    model = layers()
    before = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    products.take(model)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()} == before


@torch.no_grad()
def test_a_product_in_8_bits_is_wrong_by_a_hundredth_at_most():
    model = layers()
    x = torch.randn(64, 24)
    expected = {name: exact(layer, x) for name, layer in model.items()}
    assert products.take(model, "int8") == "int8 products"
    for name, layer in model.items():
        wrong = (layer(x).double() - expected[name]).abs().mean() / expected[name].abs().mean()
        assert 0 < wrong < 0.02, name


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_text_through_onednn_is_that_of_transformers(through_onednn, make):
    model = make()
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        expected = model.generate(ids, max_new_tokens=24, do_sample=False, pad_token_id=0)[0, 8:]
        products.take(model)
    (answer,) = decode(model, ids.tolist(), DecodingSettings(max_new_tokens=24), (0,))
    assert list(answer.ids) == expected.tolist()


@torch.no_grad()
def test_a_rounded_twin_is_there_within_its_block_alone(through_onednn):
    model = layers()
    products.take(model)
    x = torch.randn(2, 24)
    exact_values = {name: layer(x) for name, layer in model.items()}
    rounded = products.Rounded(model)
    with rounded.instead():
        assert not any(torch.equal(layer(x), exact_values[name]) for name, layer in model.items())
        assert all(torch.allclose(layer(x), exact_values[name], atol=0.1) for name, layer in model.items())
    assert all(torch.equal(layer(x), exact_values[name]) for name, layer in model.items())


def test_where_onednn_is_no_faster_nothing_changes(monkeypatch):
    monkeypatch.setattr(products, "_onednn_is_faster", lambda dtype: False)
    model = layers()
    assert products.take(model) == ""
    assert all("forward" not in vars(layer) for layer in model.values())


def test_a_torch_without_that_door_is_no_error(monkeypatch):
    def closed(*_):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(products._ThroughOneDNN, "_of", closed)
    assert not products._onednn_is_faster(torch.float32)
