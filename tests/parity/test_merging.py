"""A merged folder says what base and adapter say; plain PEFT and plain transformers are the other route."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from conftest import save_checkpoint, tiny_gpt2, tiny_llama
from encoders import encoder_folder, with_old_names
from lorakit.adapters.bundle import open_target
from lorakit.adapters.merging import fold
from lorakit.checkpoints import weights
from lorakit.errors import CheckpointError
from lorakit.workflows.merging import merge

IDS_BT = torch.arange(40).reshape(2, 20) * 7 % 400


def train_a_little(model, seed=1):
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    return model.eval()


def adapter(folder: Path, model, **settings) -> Path:
    """An adapter trained and saved by plain PEFT, without a manifest."""
    targets = ["c_attn", "c_proj", "c_fc"] if model.config.model_type == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(task_type="CAUSAL_LM", **{"target_modules": targets, "r": 4, "lora_alpha": 16, **settings})
    train_a_little(get_peft_model(model, config)).save_pretrained(folder, save_embedding_layers=False)
    return folder


def base_folder(folder: Path, kind: str, dtype=torch.float32, **saving) -> Path:
    model = (tiny_gpt2() if kind == "gpt2" else tiny_llama()).to(dtype)
    save_checkpoint(folder, model)
    if saving:
        model.save_pretrained(folder, **saving)
        (folder / "model.safetensors").unlink()
    return folder


def peft_logits(base: Path, folder: Path, merged: bool, dtype=torch.float32):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), folder)
    model = model.merge_and_unload() if merged else model
    return model.eval()(IDS_BT).logits.float()


def plain_logits(folder: Path, **settings):
    return AutoModelForCausalLM.from_pretrained(folder, **settings).eval()(IDS_BT).logits.float()


VARIANTS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"h.1.attn.c_attn": 2, "q_proj": 2}, "alpha_pattern": {"c_fc": 64, "v_proj": 64}},
    "all in one": {"use_dora": True, "use_rslora": True, "alpha_pattern": {"h.0.mlp.c_fc": 3, "layers.1.*q_proj": 3}},
}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_equals_peft_merge_and_unload(tmp_path, kind, variant):
    base = base_folder(tmp_path / "base", kind)
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base), **VARIANTS[variant])
    merge(str(folder), tmp_path / "merged", base=str(base))
    expected = peft_logits(base, folder, merged=True)
    torch.testing.assert_close(plain_logits(tmp_path / "merged"), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        plain_logits(tmp_path / "merged"), peft_logits(base, folder, merged=False), rtol=0, atol=1e-4
    )


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that tiny weights are read in several."""
    monkeypatch.setattr(weights, "_BLOCK", 2048)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("settings", [{"r": 8}, {"r": 12, "use_rslora": True}], ids=["lora", "rslora"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_merge_in_blocks_equals_peft_bit_for_bit(tmp_path, small_blocks, kind, dtype, settings):
    base = base_folder(tmp_path / "base", kind, dtype)
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), **settings)
    fold(open_target(str(folder), base=str(base)), _made(tmp_path / "merged"))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), folder)
    plain.merge_and_unload().save_pretrained(tmp_path / "plain")
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "plain"))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype
        assert found[name].equal(weight), name


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_pair_with_rows_that_the_base_lacks_is_refused(tmp_path, small_blocks, kind):
    base = base_folder(tmp_path / "base", kind)
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base))
    pairs = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in pairs if name.endswith("lora_B.weight"))
    pairs[name] = torch.cat([pairs[name], pairs[name][:1]])
    save_file(pairs, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="do not fit W"):
        fold(open_target(str(folder), base=str(base)), _made(tmp_path / "merged"))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_each_weight_equals_the_closed_form(tmp_path, kind):
    base = base_folder(tmp_path / "base", kind)
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base))
    merge(str(folder), tmp_path / "merged", base=str(base))
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    pairs = load_file(folder / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        module = "base_model.model." + name.removesuffix(".weight")
        expected = weight.double()
        if f"{module}.lora_A.weight" in pairs:
            update_OI = 4.0 * pairs[f"{module}.lora_B.weight"].double() @ pairs[f"{module}.lora_A.weight"].double()
            expected = expected + (update_OI.T if kind == "gpt2" else update_OI)
        torch.testing.assert_close(after[name].double(), expected, rtol=1e-6, atol=1e-6)


def test_a_bfloat16_base_stays_bfloat16_and_is_rounded_once(tmp_path):
    base = base_folder(tmp_path / "base", "llama", dtype=torch.bfloat16)
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    fold(open_target(str(folder), base=str(base)), _made(tmp_path / "merged"))
    after = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    exact = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder)
    for name, weight in exact.merge_and_unload().state_dict().items():
        same = after[name] == weight.to(torch.bfloat16)
        # The last bit of a sum may differ between two routes and fall to the other side of a rounding border.
        assert same.double().mean() > 0.998, name
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_merge_in_bfloat16_measures_what_rounding_costs(tmp_path):
    base = base_folder(tmp_path / "base", "gpt2")
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base))
    report = merge(str(folder), tmp_path / "merged", dtype="bfloat16", base=str(base))
    rounded = plain_logits(tmp_path / "merged", dtype=torch.float32)
    assert report.dtype == "bfloat16"
    assert report.largest_difference > 0
    assert 0.9 < report.same_argmax <= 1
    assert (rounded - peft_logits(base, folder, merged=False)).abs().max() > 0
    stored = json.loads((tmp_path / "merged" / "manifest.json").read_text())["metrics"]
    assert stored["merge_largest_difference"] == report.largest_difference


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_sharded_base_stays_sharded(tmp_path, kind):
    base = base_folder(tmp_path / "base", kind, max_shard_size="60KB")
    shards = sorted(file.name for file in base.glob("*.safetensors"))
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base))
    merge(str(folder), tmp_path / "merged", base=str(base))
    assert len(shards) > 1
    assert sorted(file.name for file in (tmp_path / "merged").glob("*.safetensors")) == shards
    torch.testing.assert_close(
        plain_logits(tmp_path / "merged"), peft_logits(base, folder, merged=True), rtol=0, atol=1e-4
    )


def test_a_tied_head_is_stored_once(tmp_path):
    base = base_folder(tmp_path / "base", "gpt2")
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base))
    merge(str(folder), tmp_path / "merged", base=str(base))
    assert "lm_head.weight" not in load_file(tmp_path / "merged" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_second_stored_copy_of_a_tied_head_is_dropped(tmp_path):
    base = base_folder(tmp_path / "base", "gpt2")
    stored = load_file(base / "model.safetensors")
    stored["lm_head.weight"] = stored["transformer.wte.weight"].clone()
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base))
    fold(open_target(str(folder), base=str(base)), _made(tmp_path / "merged"))
    assert "lm_head.weight" not in load_file(tmp_path / "merged" / "model.safetensors")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is True


def test_a_tied_head_adapted_on_its_own_leaves_the_embeddings_alone(tmp_path):
    base = base_folder(tmp_path / "base", "gpt2")
    folder = adapter(
        tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base), target_modules=["c_attn", "lm_head"]
    )
    merge(str(folder), tmp_path / "merged", base=str(base))
    after = load_file(tmp_path / "merged" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    torch.testing.assert_close(after["transformer.wte.weight"], before["transformer.wte.weight"], rtol=0, atol=0)
    torch.testing.assert_close(
        plain_logits(tmp_path / "merged"), peft_logits(base, folder, merged=False), rtol=0, atol=1e-4
    )


def test_old_names_without_prefix_and_mask_buffers_are_understood(tmp_path):
    base = base_folder(tmp_path / "base", "gpt2")
    stored = load_file(base / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.uint8)
    save_file(old, base / "model.safetensors", metadata={"format": "pt"})
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base))
    merge(str(folder), tmp_path / "merged", base=str(base))
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == stored.keys()
    torch.testing.assert_close(
        plain_logits(tmp_path / "merged"), peft_logits(base, folder, merged=True), rtol=0, atol=1e-4
    )


def test_a_bin_checkpoint_is_merged_into_safetensors(tmp_path):
    base = base_folder(tmp_path / "base", "llama")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    folder = adapter(tmp_path / "adapter", tiny_llama())
    report = merge(str(folder), tmp_path / "merged", base=str(base))
    assert any("pytorch_model.bin" in note for note in report.notes)
    torch.testing.assert_close(
        plain_logits(tmp_path / "merged"), peft_logits(base, folder, merged=True), rtol=0, atol=1e-4
    )


def test_a_merge_in_memory_equals_the_merged_folder(tmp_path):
    base = base_folder(tmp_path / "base", "gpt2")
    folder = adapter(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base), use_dora=True)
    merge(str(folder), tmp_path / "merged", base=str(base))
    in_memory = open_target(str(folder), base=str(base)).load(merge=True)
    torch.testing.assert_close(plain_logits(tmp_path / "merged"), in_memory(IDS_BT).logits, rtol=0, atol=1e-4)


def test_a_bert_whose_file_has_old_names_is_merged_as_by_plain_peft(tmp_path):
    base = encoder_folder(tmp_path / "base", "AutoModelForMaskedLM")
    model = AutoModelForMaskedLM.from_pretrained(base)
    folder = tmp_path / "adapter"
    train_a_little(get_peft_model(model, LoraConfig(target_modules=["query"], r=2))).save_pretrained(folder)
    expected = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(base), folder).eval()
    merge(str(folder), tmp_path / "merged", base=str(with_old_names(base)))
    found = AutoModelForMaskedLM.from_pretrained(tmp_path / "merged").eval()
    ids_BT = IDS_BT % 300
    torch.testing.assert_close(found(ids_BT).logits, expected(ids_BT).logits, rtol=0, atol=1e-4)
