"""What must hold on a GPU as it does on a processor; skipped where there is none."""

from __future__ import annotations

import json

import pytest
import torch
from tests.conftest import PAIRS, tiny_gpt2, tiny_llama

from lorakit.recipe import load

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def _run(tmp_path, folder, device: str, **settings: str):
    from accelerate.state import AcceleratorState

    from lorakit.workflows.training import train

    # Accelerate keeps to the device that a process took first.
    AcceleratorState._reset_state(reset_partial_state=True)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in PAIRS), encoding="utf-8")
    overrides = {
        "model.name": str(folder),
        "data.train": str(rows),
        "train.device": device,
        "train.max_steps": "3",
        "train.rows_per_step": "8",
        "optim.learning_rate": "0.01",
        **settings,
    }
    loaded = load(None, [(key, value, "--set") for key, value in overrides.items()])
    return train(loaded, tmp_path / f"run-{device}-{len(settings)}")


def test_training_on_the_gpu_follows_the_processor_in_float32(tmp_path, gpt2_folder):
    on_gpu = _run(tmp_path, gpt2_folder, "cuda", **{"train.dtype": "float32"})
    on_processor = _run(tmp_path, gpt2_folder, "cpu", **{"train.dtype": "float32"})
    assert on_gpu.state.best_loss == pytest.approx(on_processor.state.best_loss, rel=1e-3)


def test_training_in_bfloat16_ends_near_float32(tmp_path, gpt2_folder):
    rounded = _run(tmp_path, gpt2_folder, "cuda", **{"train.dtype": "bfloat16"})
    exact = _run(tmp_path, gpt2_folder, "cpu", **{"train.dtype": "float32"})
    assert rounded.state.best_loss == pytest.approx(exact.state.best_loss, rel=2e-2)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_packed_rows_do_not_see_each_other_on_the_gpu(make):
    from lorakit.fast import varlen
    from lorakit.fast.isolation import proves_isolated

    model = make().cuda()
    model.set_attn_implementation(varlen.NAME)
    assert proves_isolated(model) == ""


def test_greedy_text_on_the_gpu_equals_transformers():
    from lorakit.generation.decoding import decode
    from lorakit.generation.settings import DecodingSettings

    model = tiny_gpt2().cuda()
    prompt = [5, 9, 33, 71]
    wanted = model.generate(
        torch.tensor([prompt]).cuda(), max_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=0
    )
    (written,) = decode(model, [prompt], DecodingSettings(max_new_tokens=20), {0})
    assert list(written.ids) == wanted[0, len(prompt) :].tolist()


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_captured_steps_write_what_steps_kernel_by_kernel_do(make, monkeypatch):
    from lorakit.generation import captured
    from lorakit.generation.decoding import decode
    from lorakit.generation.settings import DecodingSettings

    monkeypatch.setattr(captured, "_LEAST_CAPACITY", 16)
    model = make().cuda()
    steps, reason = captured.prove(model)
    assert reason == ""
    prompts = [[5, 9, 33, 5, 9], [8, 9], [40, 41, 42, 43], [11], [7, 7, 9]]
    settings = DecodingSettings(max_new_tokens=40, temperature=1.0, seed=3)
    batch = {"eos_ids": range(1, 20), "at_once": [3] * len(prompts)}
    plain = decode(model, prompts, settings, **batch)
    assert len({len(answer.ids) for answer in plain}) > 1
    found = decode(model, prompts, settings, **batch, steps=steps)
    assert [answer.ids for answer in found] == [answer.ids for answer in plain]
    assert steps.taken > 0
    assert all(step._captured is not None for step in steps._steps.values())


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("causal", [True, False])
def test_torchs_kernel_for_packed_rows_equals_attention_segment_by_segment(monkeypatch, causal, window):
    from lorakit.fast import varlen, varlen_kernel

    torch.manual_seed(0)
    heads = [torch.randn(1, count, 24, 16, device="cuda", dtype=torch.bfloat16) for count in (4, 2, 2)]
    given = {"is_causal": causal, "segment_lengths": {24: (9, 12, 3)}, "sliding_window": window}
    layer = torch.nn.Module()
    if varlen_kernel.found() is None:
        pytest.skip("this torch has no such kernel")
    at_once, _ = varlen.attend(layer, *heads, None, **given)
    monkeypatch.setattr(varlen, "_kernel_fits", lambda *_: False)
    apart, _ = varlen.attend(layer, *heads, None, **given)
    assert torch.allclose(at_once, apart, atol=2e-2)


def test_the_loss_in_parts_is_that_of_cross_entropy_on_the_gpu(monkeypatch):
    from lorakit.fast import logits

    monkeypatch.setattr(logits, "_rows", lambda _: 64)
    model = tiny_gpt2().cuda()
    assert logits.prove_last(model)
    torch.manual_seed(0)
    hidden = torch.randn(150, 32, device="cuda", requires_grad=True)
    targets = torch.randint(0, 400, (150,), device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        parts = logits.loss_in_parts(model, hidden, targets)
        plain = torch.nn.functional.cross_entropy(model.lm_head(hidden).float(), targets, reduction="sum")
    assert parts.item() == pytest.approx(plain.item(), rel=1e-3)
    found, expected = (torch.autograd.grad(loss, hidden)[0] for loss in (parts, plain))
    assert torch.allclose(found, expected, rtol=2e-2, atol=2e-2)


def test_the_longest_micro_batch_is_tried_and_sets_how_much_is_computed_at_once(tmp_path, gpt2_folder):
    from accelerate.state import AcceleratorState
    from tests.runs import Listener, train

    from lorakit.training.events import NoteEvent

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in PAIRS), encoding="utf-8")
    listener = Listener()
    AcceleratorState._reset_state(reset_partial_state=True)
    train(tmp_path / "run", gpt2_folder, rows, reporters=[listener], train__device="cuda", train__max_steps=2)
    notes = [event.text for event in listener.events if isinstance(event, NoteEvent)]
    assert any(note.startswith("tried the longest") for note in notes)


@pytest.mark.parametrize("width", ["int8", "nf4"])
def test_a_rounded_base_computes_on_the_gpu_as_on_the_processor(width):
    from lorakit.checkpoints.rounded import Rounded

    if width == "nf4":
        pytest.importorskip("bitsandbytes", reason="pip install 'lorakit[quantize]'")
    torch.manual_seed(0)
    weight = torch.randn(6, 64)
    near, far = (Rounded(weight, None, width, torch.device(place)) for place in ("cpu", "cuda"))
    assert torch.allclose(far.widened(torch.float32).cpu(), near.widened(torch.float32), atol=1e-2)
