"""LoRA over a base in 8 or 4 bits: what is rounded, what that computes, and what is saved."""

import json
import os
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from conftest import save_checkpoint, tiny_gpt2, tiny_llama
from encoders import encoder_folder
from lorakit.adapters.bundle import open_target
from lorakit.checkpoints.rounded import Rounded, check_installed, round_base
from lorakit.errors import Interrupted, LorakitError
from lorakit.training.events import StepEvent
from lorakit.training.precision import lower_frozen
from runs import Listener, metrics, train, weights
from writers import tiny_writer, unigram_tokenizer

CPU = torch.device("cpu")


def needs(width):
    if width == "nf4":
        pytest.importorskip("bitsandbytes", reason="pip install 'lorakit[quantize]'")


WIDTHS = pytest.mark.parametrize("width", ["int8", "nf4"])
QUANTILES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Dettmers et al. 2023, appendix E."""


def test_int8_is_the_nearest_of_255_multiples_of_the_largest_of_each_row():
    torch.manual_seed(0)
    weight = torch.randn(5, 7)
    steps = weight.double().abs().amax(1, keepdim=True) / 127
    expected = (weight.double() / steps).round() * steps
    assert torch.allclose(Rounded(weight, None, "int8", CPU).widened(torch.float64), expected, atol=1e-6)


def test_nf4_is_the_nearest_of_16_quantiles_in_blocks_of_64_up_to_the_rounded_scales():
    needs("nf4")
    torch.manual_seed(0)
    weight = torch.randn(4, 64)
    scales = weight.double().abs().amax(1, keepdim=True)
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    expected = levels[(weight.double() / scales)[..., None].sub(levels).abs().argmin(-1)] * scales
    widened = Rounded(weight, None, "nf4", CPU).widened(torch.float64)
    assert torch.allclose(widened, expected, rtol=0.1, atol=1e-3)


@WIDTHS
@pytest.mark.parametrize("low", [False, True])
def test_the_product_and_its_gradient_are_those_of_the_widened_weight(width, low):
    needs(width)
    torch.manual_seed(0)
    bias = torch.nn.Parameter(torch.randn(6), requires_grad=False)
    layer = Rounded(torch.randn(6, 8), bias, width, CPU)
    x = torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        product = layer(x)
        plain = torch.nn.functional.linear(x, layer.widened(torch.float32), bias)
    assert product.dtype == plain.dtype
    assert torch.allclose(product, plain, atol=1e-6)
    above = torch.randn_like(product)
    found, expected = (torch.autograd.grad(value, x, above)[0] for value in (product, plain))
    assert torch.allclose(found, expected, rtol=1e-2 if low else 1e-5, atol=1e-2 if low else 1e-6)


def test_only_frozen_products_inside_blocks_are_rounded():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    kept = {name: weight.clone() for name, weight in model.named_parameters()}
    # Two blocks of four products: attention in and out, feed-forward in and out.
    assert round_base(model.requires_grad_(False), "int8", CPU) == 8
    left = dict(model.named_parameters())
    changed = sorted(name.split(".h.0.")[1] for name in kept if ".h.0." in name and left[name].dtype == torch.int8)
    products = ("attn.c_attn.base_layer", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert changed == [f"{name}.weight" for name in products]
    assert not any(isinstance(part, Conv1D) for part in model.modules())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert all(torch.equal(left[name], kept[name]) for name in kept if left[name].dtype != torch.int8)


def test_lowering_frozen_weights_leaves_rounded_ones_alone():
    model = tiny_llama().requires_grad_(False)
    round_base(model, "int8", CPU)
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    lower_frozen(model)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, before)


TRAINED = {
    "gpt": (lambda folder: save_checkpoint(folder, tiny_gpt2()), {}),
    "bert": (lambda folder: encoder_folder(folder, "AutoModelForMaskedLM"), {"objective__name": "masked_lm"}),
    "t5": (lambda folder: save_checkpoint(folder, tiny_writer("t5", vocab_size=300), unigram_tokenizer()), {}),
}


@WIDTHS
@pytest.mark.parametrize("kind", TRAINED)
def test_an_adapter_trained_over_a_rounded_base_is_plain_and_tells_both_losses(tmp_path, pairs_file, kind, width):
    needs(width)
    make, settings = TRAINED[kind]
    rows = pairs_file
    if kind == "bert":
        rows = tmp_path / "texts.jsonl"
        rows.write_text("".join(json.dumps({"text": f"words and number {n}"}) + "\n" for n in range(16)))
    method = {"name": "lora", "rank": 4, "targets": "all-linear", "quantize_base": width}
    base = make(tmp_path / "base")
    result = train(tmp_path / "run", base, rows, method=method, optim__learning_rate=1e-2, **settings)
    manifest = json.loads((result.folder / "manifest.json").read_text())
    told = manifest["metrics"]
    assert manifest["method"]["quantize_base"] == width
    assert f"base in {width}" in manifest["speed"]
    assert result.finished.difference == 0.0
    assert told["evaluation_loss_base_as_is"] == pytest.approx(told["evaluation_loss"], rel=0.2)
    assert told["evaluation_loss_base_as_is"] != told["evaluation_loss"]
    target = open_target(str(result.folder), base=str(base))
    assert any(f"trained over the base in {width}" in note for note in target.notes)
    assert all(tensor.dtype == torch.float32 for tensor in weights(result.folder).values())


@WIDTHS
def test_the_adapter_computes_over_the_base_as_it_is_in_plain_peft(tmp_path, gpt2_folder, pairs_file, width):
    needs(width)
    from peft import PeftModel

    method = {"name": "lora", "rank": 4, "quantize_base": width}
    result = train(tmp_path / "run", gpt2_folder, pairs_file, method=method, optim__learning_rate=1e-2)
    ids = torch.randint(0, 400, (1, 9))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gpt2_folder), result.folder).eval()
    own = open_target(str(result.folder), base=str(gpt2_folder)).load()
    with torch.no_grad():
        assert torch.allclose(own(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-5)
    config = json.loads((result.folder / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True


def test_a_resumed_run_over_a_rounded_base_is_the_same_run(tmp_path, gpt2_folder, pairs_file):

    settings = {"method": {"name": "lora", "rank": 4, "quantize_base": "int8"}, "train__rows_per_step": 8}
    whole = train(tmp_path / "whole", gpt2_folder, pairs_file, **settings).folder

    def stop(event):
        if isinstance(event, StepEvent):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "run", gpt2_folder, pairs_file, reporters=[Listener(stop)], **settings)
    resumed = train(tmp_path / "run", resume=True).folder
    assert metrics(resumed) == metrics(whole)
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(resumed).items())


def test_a_missing_library_is_named_with_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(LorakitError, match=r"nf4 needs bitsandbytes.*pip install 'lorakit\[quantize\]'.*int8 needs"):
        check_installed("nf4")
    check_installed("int8")


@pytest.mark.parametrize("name", ["full", "freeze", "head"])
def test_other_methods_say_why_they_do_not_round(only, name):
    _, path, problem = only(f"model: tiny-gpt\ndata: rows.csv\nmethod: {{name: {name}, quantize_base: nf4}}\n")
    assert path == "method.quantize_base"
    assert "weights that are kept rounded cannot learn themselves" in problem
    assert "choose method 'lora'" in problem


def test_dora_is_refused_beside_a_rounded_base(only):
    text = "model: tiny-gpt\ndata: rows.csv\nmethod: {name: lora, dora: true, quantize_base: int8}\n"
    _, path, problem = only(text)
    assert path == "method.dora"
    assert "which rounding changes" in problem
