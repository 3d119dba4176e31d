"""A base model is found by any of its names, and what it says about itself is true."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from conftest import save_checkpoint, tiny_gpt2, tiny_llama, tiny_tokenizer
from lorakit.checkpoints import locating
from lorakit.checkpoints.finding import find, tokenizer_fingerprint
from lorakit.errors import CheckpointError
from lorakit.types import Head


@pytest.fixture
def shipped(tmp_path, monkeypatch, gpt2_folder):
    """A built-in named tiny-gpt."""
    monkeypatch.setattr(locating, "builtins", lambda: {"tiny-gpt": gpt2_folder})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The Hub's cache of this computer, holding owner/small at one commit."""
    commit = "a" * 40
    model = tmp_path / "hub" / "models--owner--small"
    save_checkpoint(model / "snapshots" / commit, tiny_llama())
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return commit


def changed_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_folder_is_called_by_its_name_and_never_by_its_path(gpt2_folder):
    checkpoint = find(str(gpt2_folder))
    assert checkpoint.identity == "local:tiny gpt2"
    assert checkpoint.revision is None


def test_a_built_in_is_found_with_and_without_its_prefix(shipped, gpt2_folder):
    assert find("tiny-gpt").identity == find("builtin:tiny-gpt").identity == "builtin:tiny-gpt"
    assert find("tiny-gpt").folder == gpt2_folder


def test_a_folder_wins_over_a_built_in_of_its_name_and_says_so(shipped, llama_folder):
    shutil.copytree(llama_folder, "tiny-gpt")
    checkpoint = find("tiny-gpt")
    assert checkpoint.family.model_type == "llama"
    assert "builtin:tiny-gpt" in checkpoint.notes[0]
    assert find("builtin:tiny-gpt").family.model_type == "gpt2"


def test_a_hub_id_is_found_in_the_cache_with_its_commit(cached):
    checkpoint = find("owner/small")
    assert (checkpoint.identity, checkpoint.revision) == ("owner/small", cached)


def test_a_missing_model_says_where_was_looked_and_the_nearest_names(shipped, cached):
    with pytest.raises(CheckpointError) as caught:
        find("tiny-gtp")
    message = str(caught.value)
    assert "Did you mean 'tiny-gpt'?" in message
    assert "owner/small" in message
    assert "HF_HUB_OFFLINE" in message
    assert "does not exist" in message


def test_a_path_is_never_asked_of_the_hub(monkeypatch):
    monkeypatch.setattr(locating, "_from_hub", lambda *_: pytest.fail("asked the Hub"))
    for name in ("./gone", "/gone/away", "~/gone", "a/b/c"):
        with pytest.raises(CheckpointError, match="does not exist"):
            find(name)


def test_a_file_points_to_its_folder(gpt2_folder):
    with pytest.raises(CheckpointError, match="give the folder that holds it"):
        find(str(gpt2_folder / "model.safetensors"))


def test_what_is_loaded_is_what_plain_transformers_loads(gpt2_folder):
    plain = GPT2LMHeadModel.from_pretrained(gpt2_folder).state_dict()
    model = find(str(gpt2_folder)).load()
    assert not model.training
    assert all(torch.equal(plain[name], tensor) for name, tensor in model.state_dict().items())


def test_dropout_is_overridden_everywhere_or_left_alone(tmp_path):
    save_checkpoint(tmp_path, tiny_gpt2(resid_pdrop=0.1, embd_pdrop=0.2, attn_pdrop=0.3))
    left, overridden = find(str(tmp_path)).load().config, find(str(tmp_path)).load(dropout=0.05).config
    assert (left.resid_pdrop, left.embd_pdrop, left.attn_pdrop) == (0.1, 0.2, 0.3)
    assert (overridden.resid_pdrop, overridden.embd_pdrop, overridden.attn_pdrop) == (0.05, 0.05, 0.05)


def test_end_of_text_is_the_union_of_all_files(tmp_path):
    save_checkpoint(tmp_path, tiny_llama())
    changed_config(tmp_path, eos_token_id=[5, 6, 100_000])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 9}))
    assert find(str(tmp_path)).eos_ids == {0, 5, 6, 9}


def test_positions_come_from_the_familys_own_key(gpt2_folder, llama_folder):
    assert find(str(gpt2_folder)).max_positions == 64
    assert find(str(llama_folder)).max_positions == 64


def test_a_missing_tokenizer_is_an_error_and_not_an_empty_one(tmp_path):
    tiny_gpt2().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        _ = find(str(tmp_path)).tokenizer


def test_a_tokenizer_of_vocab_and_merges_alone_is_read(tmp_path):
    tiny_gpt2().save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.model.save(str(tmp_path))
    text = "The quick brown fox 서울"
    assert find(str(tmp_path)).tokenizer(text).input_ids == tokenizer(text).input_ids


def test_padding_and_truncation_do_not_change_the_tokenizers_fingerprint():
    tokenizer = tiny_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == before
    assert tokenizer_fingerprint(tiny_tokenizer(vocab_size=300)) != before


def test_only_bin_is_read_and_announced(tmp_path):
    model = tiny_gpt2()
    save_checkpoint(tmp_path, model)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    checkpoint = find(str(tmp_path))
    assert "pytorch_model.bin" in checkpoint.notes[0]
    assert torch.equal(checkpoint.load().lm_head.weight, model.lm_head.weight)


def test_a_head_that_transformers_reads_under_other_names_is_refused_without_blaming_the_file(tmp_path):
    save_checkpoint(tmp_path, tiny_llama())
    with pytest.raises(CheckpointError, match=r"LlamaForQuestionAnswering looks for .* under other names") as caught:
        find(str(tmp_path)).load(head=Head("question_answering"))
    assert "Choose another objective" in str(caught.value)


def test_code_of_a_known_type_is_left_alone_and_announced(tmp_path):
    save_checkpoint(tmp_path, tiny_gpt2())
    changed_config(tmp_path, auto_map={"AutoModelForCausalLM": "evil.Model"})
    checkpoint = find(str(tmp_path))
    assert "not run" in checkpoint.notes[0]
    assert type(checkpoint.load()) is GPT2LMHeadModel


def test_loading_says_nothing(gpt2_folder, capfd):
    find(str(gpt2_folder)).load()
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_importing_the_finder_imports_no_torch():
    code = "import sys, lorakit.checkpoints.finding; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_folder_one_is_in(name):
    with pytest.raises(CheckpointError, match="the name of a model is empty"):
        find(name)
