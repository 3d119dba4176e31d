"""Files that others made, damaged or hostile: an error that names them, never wrong weights, never their code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import save_checkpoint, tiny_gpt2, tiny_llama, tiny_tokenizer
from lorakit.adapters.bundle import open_target
from lorakit.checkpoints.finding import find
from lorakit.checkpoints.folders import whole_folder
from lorakit.errors import LorakitError

WEIGHTS = "model.safetensors"


@pytest.fixture
def model_folder(tmp_path, gpt2_folder) -> Path:
    return Path(shutil.copytree(gpt2_folder, tmp_path / "model"))


def rewrite(file: Path, change) -> None:
    """Change the tensors of a safetensors file, keeping the file itself sound."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def rewrite_header(file: Path, change) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def flip_a_bit(file: Path) -> None:
    """Set the top exponent bit of one float32 number: 0.1 becomes about 1e37, or worse."""
    rewrite(file, lambda tensors: tensors["transformer.wpe.weight"].view(torch.int32)[0, 0].fill_(0x7F800000))


def set_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
MUTATIONS = {
    "cut short": (lambda file: file.write_bytes(file.read_bytes()[:-100]), "damaged"),
    "cut inside the header": (lambda file: file.write_bytes(file.read_bytes()[:50]), "damaged"),
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "one byte more": (lambda file: file.write_bytes(file.read_bytes() + b"x"), "damaged"),
    "header length huge": (lambda file: file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:]), "damaged"),
    "header no JSON": (lambda file: file.write_bytes(file.read_bytes().replace(b'{"', b"{,", 1)), "damaged"),
    "a web page": (lambda file: file.write_bytes(b"<!DOCTYPE html><html>429</html>"), "web page"),
    "a Git LFS pointer": (lambda file: file.write_bytes(POINTER), "Git LFS pointer"),
    "a shape that does not fit": (
        lambda file: rewrite_header(file, lambda header: header["transformer.wpe.weight"].update(shape=[63, 32])),
        "does not fit its shape",
    ),
    "overlapping tensors": (
        lambda file: rewrite_header(
            file,
            lambda header: header["transformer.wpe.weight"].update(
                data_offsets=header["transformer.h.0.attn.c_proj.weight"]["data_offsets"]
            ),
        ),
        "damaged",
    ),
    "an odd dtype": (
        lambda file: rewrite_header(file, lambda header: header["transformer.wpe.weight"].update(dtype="Q4")),
        "dtype 'Q4'",
    ),
    "float32 called int32": (
        lambda file: rewrite_header(file, lambda header: header["transformer.wpe.weight"].update(dtype="I32")),
        "stored as I32",
    ),
    "one number not finite": (flip_a_bit, "not finite"),
    "a tensor missing": (lambda file: rewrite(file, lambda tensors: tensors.pop("transformer.wpe.weight")), "missing"),
    "a tensor too many": (
        lambda file: rewrite(file, lambda tensors: tensors.update(spare=torch.ones(2))),
        "unexpected",
    ),
    "a tensor transposed": (
        lambda file: rewrite(file, lambda tensors: tensors.update({"transformer.wpe.weight": torch.ones(32, 64)})),
        "misshapen",
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_damaged_weight_file_is_an_error_that_names_it(model_folder, mutation):
    damage, words = MUTATIONS[mutation]
    damage(model_folder / WEIGHTS)
    with pytest.raises(LorakitError, match=words) as caught:
        find(str(model_folder)).load()
    assert str(model_folder) in str(caught.value)


def test_a_header_whose_length_begins_like_a_web_page_is_read(model_folder):
    file = model_folder / WEIGHTS
    plain = find(str(model_folder)).fingerprint
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    # Spaces behind a header are part of it.
    longer = length + (ord("<") - length) % 256
    text = data[8 : 8 + length].ljust(longer)
    file.write_bytes(longer.to_bytes(8, "little") + text + data[8 + length :])
    assert file.read_bytes().startswith(b"<")
    assert find(str(model_folder)).fingerprint == plain


@pytest.mark.parametrize("damage", ["zeroed tail", "one bit"])
def test_sound_numbers_that_are_not_the_saved_ones_are_caught_by_their_hash(tmp_path, damage):
    with whole_folder(tmp_path / "model") as aside:
        save_checkpoint(aside, tiny_gpt2())
    file = tmp_path / "model" / WEIGHTS
    data = bytearray(file.read_bytes())
    data[-64:] = bytes(64) if damage == "zeroed tail" else data[-64:-1] + bytes([data[-1] ^ 1])
    file.write_bytes(data)
    with pytest.raises(LorakitError, match=WEIGHTS):
        open_target(str(tmp_path / "model"))


def test_a_missing_shard_and_a_stale_index_are_named(tmp_path, gpt2_folder):
    save_checkpoint(tmp_path, tiny_gpt2())
    (tmp_path / WEIGHTS).unlink()
    tiny_gpt2().save_pretrained(tmp_path, max_shard_size="60KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[0]
    held = shard.read_bytes()
    shard.unlink()
    with pytest.raises(LorakitError, match=shard.name):
        find(str(tmp_path))
    shard.write_bytes(held)
    rewrite(shard, lambda tensors: tensors.update(spare=torch.ones(1)))
    with pytest.raises(LorakitError, match="not of one save"):
        find(str(tmp_path))
    shutil.copy(gpt2_folder / WEIGHTS, tmp_path)
    with pytest.raises(LorakitError, match="out of date"):
        find(str(tmp_path))


def test_an_index_cannot_lead_out_of_its_folder(model_folder):
    os.rename(model_folder / WEIGHTS, model_folder.parent / WEIGHTS)
    index = {"weight_map": {"transformer.wpe.weight": f"../{WEIGHTS}"}}
    (model_folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(LorakitError, match="outside its folder"):
        find(str(model_folder))


def test_weights_of_another_architecture_are_not_filled_up_at_random(tmp_path):
    save_checkpoint(tmp_path, tiny_gpt2())
    tiny_llama().config.save_pretrained(tmp_path)
    with pytest.raises(LorakitError, match=r"(?s)missing.*unexpected"):
        find(str(tmp_path)).load()


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path):
    save_checkpoint(tmp_path, tiny_gpt2(vocab_size=300), tiny_tokenizer(400))
    with pytest.raises(LorakitError, match=r"has 4\d\d tokens and the model's embedding 300 rows|has \d+ tokens"):
        _ = find(str(tmp_path)).tokenizer


class Touch:
    """Unpickled, it would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self):
        return os.mknod, (self.file,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "optimizer.pt", "training_args.bin"])
def test_no_pickle_is_ever_obeyed(tmp_path, model_folder, name):
    torch.save({"weight": Touch(tmp_path / "PWNED")}, model_folder / name)
    if name == "pytorch_model.bin":
        (model_folder / WEIGHTS).unlink()
    if name == "adapter_model.bin":
        (model_folder / "config.json").unlink()
        (model_folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    with contextlib.suppress(LorakitError):
        open_target(str(model_folder), base=str(model_folder)).load()
    with contextlib.suppress(LorakitError):
        open_target(str(model_folder)).load()
    assert not (tmp_path / "PWNED").exists()


EVIL_CONFIGS = {
    "internal attention": {"_attn_implementation_internal": "evil/kernels"},
    "attention from a repository": {"attn_implementation": "evil/kernels"},
    "nested attention": {"text_config": {"attn_implementation": "evil/kernels"}},
    "trusting itself": {"trust_remote_code": True},
    "quantised": {"quantization_config": {"quant_method": "bitsandbytes"}},
    "unknown type with code": {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}},
    "unknown type": {"model_type": "zzz", "architectures": ["ZzzForCausalLM"]},
    "weights elsewhere": {"transformers_weights": "../../other.safetensors"},
    "a billion blocks": {"n_layer": 10**9},
    "many blocks": {"n_layer": 4000},
    "a huge vocabulary": {"vocab_size": 2**31},
    "a larger vocabulary than stored": {"vocab_size": 10**6},
    "no heads": {"n_head": 0},
    "heads that do not divide": {"n_head": 5},
    "a negative width": {"n_embd": -32},
    "a width in words": {"n_embd": "32"},
    "a width that is no number": {"n_embd": float("nan")},
    "architectures that are no list": {"architectures": 5},
    "a wrong type deeper": {"layer_norm_epsilon": "small"},
}


@pytest.mark.parametrize("evil", EVIL_CONFIGS)
def test_a_config_cannot_run_code_or_exhaust_the_machine(model_folder, monkeypatch, evil):
    (model_folder / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("opened a connection"))
    set_config(model_folder, **EVIL_CONFIGS[evil])
    with pytest.raises(LorakitError, match="config") as caught:
        find(str(model_folder)).load()
    assert len(str(caught.value)) < 2000
    assert "evil" not in sys.modules


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x00", '{"model_type": 7}', "[" * 100_000])
def test_a_config_that_is_no_config_is_named(model_folder, text):
    (model_folder / "config.json").write_text(text)
    with pytest.raises(LorakitError, match=r"config\.json"):
        find(str(model_folder))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": {"type": "BPE"}}'])
def test_a_damaged_tokenizer_is_named(model_folder, text):
    (model_folder / "tokenizer.json").write_text(text)
    with pytest.raises(LorakitError, match="tokenizer"):
        _ = find(str(model_folder)).tokenizer


ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "owner/base",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["c_attn"],
    "fan_in_fan_out": True,
}


@pytest.fixture
def adapter_folder(tmp_path, gpt2_folder) -> Path:
    from peft import LoraConfig, get_peft_model

    settings = {key: value for key, value in ADAPTER.items() if key != "peft_type"}
    get_peft_model(tiny_gpt2(), LoraConfig(**settings)).save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(ADAPTER))
    return tmp_path / "adapter"


def test_an_adapter_from_elsewhere_opens_on_a_given_base(adapter_folder, gpt2_folder):
    assert open_target(str(adapter_folder), base=str(gpt2_folder)).load() is not None


EVIL_ADAPTERS = {
    "auto_mapping": {"auto_mapping": {"base_model_class": "x", "parent_library": "evil"}},
    "megatron_core": {"megatron_core": "evil"},
    "megatron_config": {"megatron_config": {"a": 1}},
    "another kind": {"peft_type": "IA3"},
    "unknown key": {"run_this": "evil.py"},
    "rank of zero": {"r": 0},
    "rank in words": {"r": "4"},
    "alpha not finite": {"lora_alpha": float("nan")},
    "alpha of zero": {"lora_alpha": 0},
    "dropout of one": {"lora_dropout": 1.0},
    "biases": {"bias": "all"},
    "modules to save": {"modules_to_save": ["lm_head"]},
    "base rewritten at the start": {"init_lora_weights": "pissa"},
    "a slow pattern": {"target_modules": "(a+)+b"},
    "a broken pattern": {"target_modules": "(c_attn"},
    "layers copied": {"layer_replication": [[0, 2], [0, 2]]},
    "nothing targeted": {"target_modules": ["nothing"]},
    "another target": {"target_modules": ["c_attn", "c_fc"]},
    "another rank": {"r": 2},
    "dora without its magnitudes": {"use_dora": True},
}


@pytest.mark.parametrize("evil", EVIL_ADAPTERS)
def test_an_adapter_config_is_checked_before_peft_sees_it(adapter_folder, gpt2_folder, monkeypatch, evil):
    (adapter_folder / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(adapter_folder))
    (adapter_folder / "adapter_config.json").write_text(json.dumps({**ADAPTER, **EVIL_ADAPTERS[evil]}))
    with pytest.raises(LorakitError, match="adapter"):
        open_target(str(adapter_folder), base=str(gpt2_folder)).load()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("path", ["/etc", "../../x", "~/x", "http://host/x", "//host/share", "./model", "a\\b"])
def test_a_path_that_an_adapter_names_is_not_followed(adapter_folder, monkeypatch, path):
    monkeypatch.setattr("lorakit.checkpoints.locating._from_hub", lambda *_: pytest.fail("asked the Hub"))
    (adapter_folder / "adapter_config.json").write_text(json.dumps({**ADAPTER, "base_model_name_or_path": path}))
    with pytest.raises(LorakitError, match="--base FOLDER"):
        open_target(str(adapter_folder))


def test_a_folder_here_does_not_stand_in_for_the_hub_id_that_an_adapter_names(
    adapter_folder, tmp_path, gpt2_folder, monkeypatch
):
    shutil.copytree(gpt2_folder, tmp_path / "owner" / "base")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LorakitError, match="HF_HUB_OFFLINE"):
        open_target(str(adapter_folder))


ADAPTER_DAMAGE = {
    "not a number": lambda tensors: next(iter(tensors.values())).fill_(float("nan")),
    "a tensor missing": lambda tensors: tensors.popitem(),
    "a pair missing": lambda tensors: [tensors.pop(name) for name in list(tensors) if ".h.1." in name],
    "a tensor too many": lambda tensors: tensors.update(spare=torch.ones(2)),
    "another shape": lambda tensors: tensors.update({next(iter(tensors)): torch.ones(3, 3)}),
    "whole numbers": lambda tensors: tensors.update({next(iter(tensors)): torch.ones(4, 32, dtype=torch.int64)}),
}


@pytest.mark.parametrize("damage", ADAPTER_DAMAGE)
def test_a_damaged_adapter_is_an_error(adapter_folder, gpt2_folder, damage):
    rewrite(adapter_folder / "adapter_model.safetensors", ADAPTER_DAMAGE[damage])
    with pytest.raises(LorakitError, match="adapter"):
        open_target(str(adapter_folder), base=str(gpt2_folder)).load()
