"""Tiny seeded checkpoints and tokenizers, made in the process: no network, no files from outside."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two workers write to no terminal, and say how wide that of their parent is.
os.environ.pop("COLUMNS", None)

import signal
from pathlib import Path

import pytest
import torch

# A second thread gains nothing on models this small, and waits long where others use the processor.
torch.set_num_threads(1)

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Once upon a time there was a small model that wanted to speak.",
    "Facts: name Alimentum, area riverside. Answer: Alimentum is by the river.",
    "한국어 문장도 글자를 잃지 않고 읽고 쓴다. 서울은 대한민국의 수도이다.",
    "question: what is two and two? answer: four.",
)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """What is kept for later starts stays out of the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def ctrl_c():
    """A program that ends in a test no longer listens to Ctrl-C; the tests go on to do."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def tiny_tokenizer(vocab_size: int = 400, chat_template: str | None = None):
    """Byte-level BPE trained on five sentences; `<|endoftext|>` is BOS, EOS and pad at once, as in GPT-2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=64,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_gpt2(seed: int = 0, vocab_size: int = 400, **changes):
    """Two blocks, hidden 32, 64 positions, dropout 0 unless asked."""
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = {
        "vocab_size": vocab_size,
        "n_positions": 64,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        # A larger spread than the default gives greedy text that varies, so that parity tests can fail.
        "initializer_range": 0.2,
    }
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(**{**settings, **changes})).eval()


def tiny_llama(seed: int = 0, vocab_size: int = 400, **changes):
    """Two blocks, hidden 32, four heads on two key-value heads, untied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.2,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def save_checkpoint(folder: Path, model, tokenizer=None) -> Path:
    """Write a transformers folder."""
    model.save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory) -> Path:
    """A GPT-2 checkpoint folder; read only."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny gpt2", tiny_gpt2())


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    """A Llama checkpoint folder; read only."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-llama", tiny_llama())


PAIRS = tuple(
    {"prompt": f"name: {name} | area: {area}", "completion": f"{name} lies in the {area}."}
    for name in ("Alder", "Birch", "Cedar", "Dahlia", "Elm", "나무")
    for area in ("north", "south", "centre", "강남")
)
"""24 rows of prompts and completions, English and Korean."""


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """The 24 pairs as JSONL."""
    import json

    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in PAIRS), encoding="utf-8")
    return path


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """Load a recipe from its text and return its faults as (line or origin, path, problem)."""
    from lorakit.errors import RecipeError
    from lorakit.recipe import load

    monkeypatch.chdir(tmp_path)

    def _faults(text: str, *overrides: tuple[str, str, str]) -> list[tuple[int | str, str, str]]:
        Path("mine.yaml").write_text(text, encoding="utf-8", newline="")
        with pytest.raises(RecipeError) as caught:
            load("mine.yaml", overrides)
        assert str(caught.value).startswith("mine.yaml has ")
        return [
            (fault.origin if fault.line is None else fault.line, fault.where, fault.problem)
            for fault in caught.value.faults
        ]

    return _faults


@pytest.fixture
def only(faults):
    """Load a recipe with one fault and return it."""

    def _only(text: str, *overrides: tuple[str, str, str]) -> tuple[int | str, str, str]:
        found = faults(text, *overrides)
        assert len(found) == 1, found
        return found[0]

    return _only
