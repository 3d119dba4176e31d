"""The fast paths of a GPU, each against the plain thing; skipped where there is none."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from tests.conftest import PAIRS, tiny_gpt2, tiny_llama
from tests.runs import objective, random_examples, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GPU = torch.device("cuda")
LENGTHS = [(5, 9, 20), (30, 40), (3, 3, 3), (60, 60, 30, 9), (12,)]


@pytest.fixture(autouse=True)
def _anew():
    from accelerate.state import AcceleratorState

    # Accelerate keeps to the device that a process took first.
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def pairs(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in PAIRS), encoding="utf-8")
    return rows


def on_gpu(output, folder, rows, **settings):
    asked = {"train__device": "cuda", "train__dtype": "bfloat16", "train__rows_per_step": 8, "train__epochs": 2}
    return train(output, folder, rows, **{**asked, **settings})


def told(run):
    from lorakit.adapters.bundle import open_target

    return open_target(str(run.folder)).manifest.speed


def batch_on_gpu(examples):
    from lorakit.training.run import Run

    batch = objective().collate(examples, packed=True)
    return Run.placed(SimpleNamespace(accelerator=SimpleNamespace(device=GPU)), batch)


def packed_model(make, **changes):
    from lorakit.fast import varlen

    model = make(**changes).to(GPU).train()
    model.set_attn_implementation(varlen.NAME)
    return model


@pytest.mark.parametrize("twice", [False, True], ids=["kept", "computed twice"])
@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_compiled_blocks_give_the_gradients_of_plain_ones_by_the_same_code_at_all_lengths(make, twice):
    from torch._dynamo.utils import counters

    from lorakit.fast import compiled, varlen_kernel
    from lorakit.training import memory

    if varlen_kernel.lacks(GPU):
        pytest.skip(varlen_kernel.lacks(GPU))
    torch._dynamo.reset()
    counters.clear()
    model = packed_model(make)
    if twice:
        memory.recompute(model)

    def slopes(lengths):
        batch = batch_on_gpu(random_examples([max(2, length) for length in lengths]))
        with torch.autocast("cuda", torch.bfloat16):
            loss = objective().loss_sums(model, batch)["tokens"]
        return list(torch.autograd.grad(loss, list(model.parameters())))

    plain = [slopes(lengths) for lengths in LENGTHS]
    blocks = list(model.transformer.h if make is tiny_gpt2 else model.model.layers)
    assert compiled.take(blocks, lambda: slopes(LENGTHS[0]), torch.bfloat16) == ""
    codes = counters["stats"]["unique_graphs"]
    assert codes > 0
    for lengths, expected in zip(LENGTHS, plain, strict=True):
        found, wanted = (torch.cat([slope.flatten() for slope in each]) for each in (slopes(lengths), expected))
        assert (found - wanted).norm() <= 3e-2 * wanted.norm()
    assert counters["stats"]["unique_graphs"] == codes


def test_a_run_with_compiled_blocks_ends_near_one_without(tmp_path, llama_folder, pairs):
    plain = on_gpu(tmp_path / "plain", llama_folder, pairs, speed__compile=False)
    found = on_gpu(tmp_path / "compiled", llama_folder, pairs, speed__compile=True)
    assert {"compile", "varlen"} <= set(told(found))
    assert found.state.best_loss == pytest.approx(plain.state.best_loss, rel=1e-2)


def test_rows_are_padded_in_float32_since_the_kernel_takes_16_bits(tmp_path, llama_folder, pairs):
    found = on_gpu(tmp_path / "run", llama_folder, pairs, train__dtype="float32")
    assert any(line.startswith("no varlen: a GPU's kernel") for line in told(found))


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_forward_and_backward_pass_wait_for_nothing(make):
    model, examples = packed_model(make), random_examples([9, 30, 17])
    batches = [batch_on_gpu(examples), batch_on_gpu(examples[1:])]
    for batch in batches:
        # Libraries wait when they are first used.
        with torch.autocast("cuda", torch.bfloat16):
            objective().loss_sums(model, batch)["tokens"].backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for part in (examples[:2], examples):
            with torch.autocast("cuda", torch.bfloat16):
                loss = objective().loss_sums(model, batch_on_gpu(part))["tokens"]
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_weights_arrive_in_the_bytes_they_compute_with():
    from lorakit.fast.settings import SpeedSettings
    from lorakit.training import memory
    from lorakit.workflows.building import quicken

    model = tiny_gpt2(n_embd=512, n_layer=4).requires_grad_(False)
    whole = memory.weights(model)
    before = memory.mark(GPU)
    quicken(model, SpeedSettings(), "bfloat16", True, GPU)
    assert memory.peak(GPU) - before < 0.7 * whole


def test_memory_that_torch_keeps_is_at_hand():
    from lorakit.training import memory

    torch.cuda.empty_cache()
    before = memory.free_bytes(GPU)
    taken = torch.empty(2**28, dtype=torch.uint8, device=GPU)
    del taken
    assert memory.free_bytes(GPU) == pytest.approx(before, rel=0.01)


def test_full_memory_halves_the_micro_batch(tmp_path, llama_folder, pairs, monkeypatch):
    from lorakit.training import loop

    whole, tried = loop.train_window, []

    def full_once(*given):
        tried.append(given)
        if len(tried) == 1:
            torch.empty(2**50, dtype=torch.uint8, device=GPU)
        return whole(*given)

    plain = on_gpu(tmp_path / "plain", llama_folder, pairs)
    monkeypatch.setattr(loop, "train_window", full_once)
    found = on_gpu(tmp_path / "full", llama_folder, pairs)
    assert len(tried) > 1
    assert found.state.best_loss == pytest.approx(plain.state.best_loss, rel=1e-2)


def test_blocks_are_computed_twice_by_themselves_where_a_row_does_not_fit(tmp_path, llama_folder, pairs, monkeypatch):
    from lorakit.training import memory

    monkeypatch.setattr(memory, "free_bytes", lambda _: 1)
    found = on_gpu(tmp_path / "run", llama_folder, pairs)
    assert found.prepared.built.recomputed


@pytest.mark.parametrize("width", ["int8", "nf4"])
def test_lora_learns_beside_a_rounded_base(tmp_path, llama_folder, pairs, width):
    if width == "nf4":
        pytest.importorskip("bitsandbytes", reason="pip install 'lorakit[quantize]'")
    found = on_gpu(tmp_path / "run", llama_folder, pairs, method__quantize_base=width, optim__learning_rate=0.01)
    assert found.state.best_loss < found.state.first_loss


def test_frozen_blocks_computed_once_give_the_loss_of_blocks_computed_each_time(tmp_path, llama_folder, pairs):
    asked = {"method__last_blocks": 1, "train__epochs": 3}
    plain = on_gpu(tmp_path / "plain", llama_folder, pairs, speed__frontier=False, **asked)
    found = on_gpu(tmp_path / "once", llama_folder, pairs, **asked)
    assert "frontier" in told(found)
    assert found.state.best_loss == pytest.approx(plain.state.best_loss, rel=1e-2)
