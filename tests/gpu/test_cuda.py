"""What must hold on a GPU as it does on a processor; skipped where there is none."""

from __future__ import annotations

import json

import pytest
import torch
from tests.conftest import PAIRS, tiny_gpt2, tiny_llama

from lorakit.recipe import load

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def _run(tmp_path, folder, device: str, **settings: str):
    from lorakit.workflows.training import train

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
