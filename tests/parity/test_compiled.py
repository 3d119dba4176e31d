"""Compiled blocks, on a processor: losses and gradients of plain ones, for rows of any length by the same code."""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo.utils import counters
from transformers import AttentionInterface

from conftest import tiny_gpt2, tiny_llama
from lorakit.adapters.bundle import open_target
from lorakit.fast import compiled, shapes, varlen
from lorakit.training import memory
from lorakit.training.events import NoteEvent
from runs import Listener, train, weights

LENGTHS = [(5, 9, 20), (30, 40), (3, 3, 3), (60, 60, 30, 9), (12,)]


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    # It writes down all that it does, which pytest would keep.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    yield
    torch._dynamo.reset()
    AttentionInterface.register(varlen.NAME, varlen.attend)


def with_pairs():
    """Return a packed decoder beside which LoRA learns, and its blocks."""
    model = tiny_gpt2()
    model.set_attn_implementation(varlen.NAME)
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    return adapted.train(), model.transformer.h


def packed(lengths):
    torch.manual_seed(1)
    ids_1T = torch.randint(0, 400, (1, sum(lengths)))
    return shapes.rounded_row({"input_ids": ids_1T, "position_ids": varlen.positions(lengths)[None]}, lengths)


def loss_and_slopes(model, row, dtype=torch.float32):
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = model(**row, use_cache=False).logits
    loss = logits.float().square().mean()
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, learned)]


def taken(model, blocks, row, backend="eager"):
    return compiled.take(blocks, lambda: loss_and_slopes(model, row)[1:], torch.float32, backend)


def test_gradients_beside_lora_are_those_of_plain_blocks_by_the_same_code_at_all_lengths():
    model, blocks = with_pairs()
    expected = [loss_and_slopes(model, packed(lengths)) for lengths in LENGTHS]
    assert taken(model, blocks, packed(LENGTHS[0])) == ""
    codes = counters["stats"]["unique_graphs"]
    assert codes > 0
    for lengths, plain in zip(LENGTHS, expected, strict=True):
        for one, other in zip(loss_and_slopes(model, packed(lengths)), plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert counters["stats"]["unique_graphs"] == codes


def stand_in(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """torch's kernel for packed causal rows, as one mask: something that a compiler sees into."""
    places_T = torch.arange(len(query))
    segment_T = torch.searchsorted(cu_seq_q.long(), places_T, right=True)
    distance_TT = places_T[:, None] - places_T
    seen_TT = (segment_T[:, None] == segment_T) & (distance_TT >= 0) & (distance_TT < max_q)
    key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (key, value))
    scores_HTT = torch.einsum("the,uhe->htu", query, key) * scale
    return torch.einsum("htu,uhe->the", scores_HTT.masked_fill(~seen_TT, -torch.inf).softmax(-1).to(value.dtype), value)


@pytest.mark.parametrize("twice", [False, True], ids=["kept", "computed twice"])
def test_the_kernel_of_a_gpu_is_part_of_one_code_for_all_lengths(monkeypatch, twice):
    model = tiny_llama().train()
    model.set_attn_implementation(varlen.NAME)
    expected = [loss_and_slopes(model, packed(lengths), torch.bfloat16) for lengths in LENGTHS]
    if twice:
        memory.recompute(model)
    monkeypatch.setattr(compiled, "_kernel", stand_in)
    AttentionInterface.register(varlen.NAME, compiled.attend)
    for block in model.model.layers:
        block.compile(backend="eager", dynamic=True, fullgraph=True)
    for lengths, plain in zip(LENGTHS, expected, strict=True):
        for one, other in zip(loss_and_slopes(model, packed(lengths), torch.bfloat16), plain, strict=True):
            assert (one - other).norm() <= 0.05 * other.norm()
    assert counters["stats"]["unique_graphs"] == 1


def test_what_cannot_be_compiled_is_left_as_it_is_with_the_reason():
    def missing(*_):
        raise RuntimeError("no compiler found")

    model, blocks = with_pairs()
    assert "no compiler found" in taken(model, blocks, packed(LENGTHS[0]), missing)
    assert all(block._compiled_call_impl is None for block in blocks)


def test_code_that_computes_something_else_is_found_out():
    def wrong(graph, _):
        return lambda *inputs: tuple(1.01 * made if made.is_floating_point() else made for made in graph(*inputs))

    model = tiny_gpt2()
    reason = taken(model, model.transformer.h, packed(LENGTHS[0]), wrong)
    assert reason.startswith("gradients differ by")
    assert model.transformer.h[0]._compiled_call_impl is None


def test_a_run_with_compiled_blocks_ends_with_the_weights_and_names_of_one_without(
    tmp_path, gpt2_folder, pairs_file, monkeypatch
):
    monkeypatch.setattr(compiled.take, "__defaults__", ("eager",))
    listener, asked = Listener(), {"train__max_steps": 1, "method__name": "freeze"}
    found = train(tmp_path / "compiled", gpt2_folder, pairs_file, speed__compile=True, reporters=[listener], **asked)
    assert counters["stats"]["unique_graphs"] > 0
    plain = train(tmp_path / "plain", gpt2_folder, pairs_file, speed__products=False, **asked)
    assert weights(found.folder).keys() == weights(plain.folder).keys()
    for name, weight in weights(plain.folder).items():
        torch.testing.assert_close(weights(found.folder)[name], weight)
    assert any("2 blocks are compiled" in event.text for event in listener.events if isinstance(event, NoteEvent))
    told = [open_target(str(run.folder)).manifest.speed for run in (found, plain)]
    assert ["compile" in speed for speed in told] == [True, False]
