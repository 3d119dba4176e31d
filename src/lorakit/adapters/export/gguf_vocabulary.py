"""A fast tokenizer in GGUF's words: tokens, their kinds, merges or scores, and the name of its pre-tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's kinds of tokens (`gguf.TokenType`)."""

_BEHIND = -1000.0
"""Score of a token that no merge makes."""

_BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_PRE_TOKENIZERS = {
    (_BYTE_LEVEL,): "gpt-2",
    ("digits", _BYTE_LEVEL): "starcoder",
    (_SPLIT % r"\p{N}{1,3}",): "llama-bpe",
    (_SPLIT % r"\p{N}",): "qwen2",
}
"""What text is cut by, in order -> llama.cpp's name of it."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What GGUF says of a tokenizer."""

    model: str
    """``gpt2``: byte-level BPE; ``llama``: BPE over characters, from SentencePiece."""
    pre: str
    """llama.cpp's name of the pattern that cuts text before it is merged."""
    tokens: list[str]
    kinds: list[int]
    merges: list[str] | None = None
    scores: list[float] | None = None
    space_prefix: bool = False
    """Whether a space is put before a text."""


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """Return what GGUF is to say of a tokenizer.

    Args:
        tokenizer: A fast one.
        rows: Of the embeddings, at least one a token; what the tokenizer lacks is marked as unused.

    Raises:
        CheckpointError: llama.cpp has no tokenizer of that kind.
    """
    told: Any = json.loads(tokenizer.backend_tokenizer.to_str())
    model = told["model"]
    if model["type"] != "BPE":
        raise CheckpointError(
            f"llama.cpp has no such tokenizer for text models: its model is {model['type']}, not BPE."
        )
    pairs = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    tokens, kinds = _tokens(model["vocab"], told["added_tokens"], rows)
    if not model["byte_fallback"]:
        merges = [" ".join(pair) for pair in pairs]
        return Vocabulary("gpt2", _pre_tokenizer(told), tokens, kinds, merges=merges)
    ranks = {"".join(pair): -float(rank) for rank, pair in reversed(list(enumerate(pairs, start=1)))}
    unknown = model["vocab"].get(model["unk_token"])
    for number, token in enumerate(tokens):
        if kinds[number] == _NORMAL and len(token) == 6 and token.startswith("<0x"):
            kinds[number] = _BYTE
    if unknown is not None:
        kinds[unknown] = _UNKNOWN
    scores = [ranks.get(token, _BEHIND) for token in tokens]
    return Vocabulary("llama", "default", tokens, kinds, scores=scores, space_prefix=_prepends(told))


def _tokens(
    vocabulary: Mapping[str, int], added: Sequence[Mapping[str, Any]], rows: int
) -> tuple[list[str], list[int]]:
    tokens, kinds = [f"[PAD{number}]" for number in range(rows)], [_UNUSED] * rows
    for token, number in vocabulary.items():
        tokens[number], kinds[number] = token, _NORMAL
    for entry in added:
        number = entry["id"]
        tokens[number], kinds[number] = entry["content"], _CONTROL if entry["special"] else _USER_DEFINED
    return tokens, kinds


def _pre_tokenizer(told: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of how a byte-level tokenizer cuts text."""
    steps = tuple(step for part in _parts(told["pre_tokenizer"], "pretokenizers") for step in _cuts(part))
    # NFC leaves all text as it is that is written as people type it.
    normalisers = {part["type"] for part in _parts(told["normalizer"], "normalizers")}
    if steps not in _PRE_TOKENIZERS or normalisers - {"NFC"}:
        raise CheckpointError(
            f"llama.cpp does not cut text as this tokenizer does ({told['normalizer']}, {told['pre_tokenizer']}): it "
            f"would read other tokens. Use --to safetensors."
        )
    return _PRE_TOKENIZERS[steps]


def _parts(step: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """Return the steps of a sequence, or a step alone as one."""
    if step is None:
        return []
    return list(step[key]) if step["type"] == "Sequence" else [step]


def _cuts(step: Mapping[str, Any]) -> list[str]:
    """Return what a step of a byte-level pre-tokenizer cuts by; nothing where it only spells bytes."""
    if step["type"] == "ByteLevel" and not step["add_prefix_space"]:
        return [_BYTE_LEVEL] if step["use_regex"] else []
    if step["type"] == "Digits" and step["individual_digits"]:
        return ["digits"]
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        return [step["pattern"].get("Regex", "text")]
    return [step["type"]]


def _prepends(told: Mapping[str, Any]) -> bool:
    """Whether a tokenizer of SentencePiece's kind puts a space before a text."""
    normalisers = _parts(told["normalizer"], "normalizers")
    if any(part["type"] == "Prepend" for part in normalisers):
        return True
    steps = _parts(told["pre_tokenizer"], "pretokenizers")
    return any(part["type"] == "Metaspace" and part["prepend_scheme"] != "never" for part in steps)
