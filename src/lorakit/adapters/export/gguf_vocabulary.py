"""A fast tokenizer in GGUF's words: tokens, their kinds, merges or scores, and how text is cut before."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.adapters.export import gguf_charsmap
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's kinds of tokens (`gguf.TokenType`)."""

_BEHIND = -1000.0
"""Score of a token that no merge makes."""

_BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_CUTTING = {"Metaspace", "WhitespaceSplit", "Digits", "Split"}
"""What may cut text before pieces are chosen."""

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
    """``gpt2``: byte-level BPE; ``llama``: BPE over characters, ``t5``: pieces by probability, both from SentencePiece;
    ``bert``: pieces of words."""
    pre: str
    """llama.cpp's name of the pattern that cuts text before it is merged."""
    tokens: list[str]
    kinds: list[int]
    merges: list[str] | None = None
    scores: list[float] | None = None
    space_prefix: bool = False
    """Whether a space is put before a text."""
    merges_spaces: bool = False
    """Whether spaces at both ends are left out, and several are read as one."""
    charsmap: bytes | None = None
    """What characters are exchanged for first, as SentencePiece keeps it (`gguf_charsmap.py`)."""
    spells_bytes: bool = False
    """Whether the table does what llama.cpp does not: read characters outside the vocabulary as their bytes."""
    lowers: bool = False
    """Whether text is read in lower case."""
    strips_accents: bool = False
    decomposes: bool = False
    """Whether the tokenizer takes letters apart first (NFD), which llama.cpp does not do with all of them."""


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, rows: int, accepted: Sequence[str] = ("BPE",)) -> Vocabulary:
    """Return what GGUF is to say of a tokenizer.

    Args:
        tokenizer: A fast one.
        rows: Of the embeddings, at least one a token; what the tokenizer lacks is marked as unused.
        accepted: Kinds that this type of model is known with: ``BPE``, ``Unigram``, ``WordPiece``.

    Raises:
        CheckpointError: llama.cpp has no tokenizer of that kind.
    """
    told: Any = json.loads(tokenizer.backend_tokenizer.to_str())
    model = told["model"]
    if model["type"] not in accepted:
        raise CheckpointError(
            f"llama.cpp has no such tokenizer for this type of model: its model is {model['type']}, not "
            f"{' or '.join(accepted)}."
        )
    if model["type"] != "BPE":
        return _unigram(tokenizer, told, rows) if model["type"] == "Unigram" else _word_pieces(told, rows)
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
        raise _cuts_otherwise(told)
    return _PRE_TOKENIZERS[steps]


def _cuts_otherwise(told: Mapping[str, Any]) -> CheckpointError:
    # A table of characters is long.
    steps = f"{told['normalizer']}, {told['pre_tokenizer']}"
    return CheckpointError(
        f"llama.cpp does not cut text as this tokenizer does ({steps[:400]}): it would read other tokens. Use --to "
        f"safetensors."
    )


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


def _unigram(tokenizer: PreTrainedTokenizerBase, told: Mapping[str, Any], rows: int) -> Vocabulary:
    """Return a tokenizer that chooses the most probable pieces (Kudo 2018, arXiv:1804.10959).

    llama.cpp reads no bytes of such a tokenizer, and cuts letters apart that begin as a token added to it does. So
    both are pieces here that win over all others, and the table of characters keeps the one and spells the other.
    """
    model = told["model"]
    numbers = {piece: number for number, (piece, _) in enumerate(model["vocab"])}
    tokens, kinds = _tokens(numbers, told["added_tokens"], rows)
    scores = [score for _, score in model["vocab"]] + [_BEHIND] * (rows - len(model["vocab"]))
    if model["unk_id"] is not None:
        kinds[model["unk_id"]] = _UNKNOWN
    in_bytes = {byte: name for byte in range(256) if model["byte_fallback"] and (name := f"<0x{byte:02X}>") in numbers}
    names = set(in_bytes.values())
    pieces = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _NORMAL and token not in names]
    steps = _parts(told["pre_tokenizer"], "pretokenizers")
    charsmap, exchanged, merges = _normalised(told)
    if {step["type"] for step in steps} - _CUTTING or _crossed(tokenizer, pieces) or (charsmap and exchanged):
        raise _cuts_otherwise(told)
    added = {number: token for number, token in enumerate(tokens) if kinds[number] == _USER_DEFINED}
    spells_bytes = charsmap is None and bool(in_bytes)
    if spells_bytes or exchanged:
        charsmap = gguf_charsmap.compiled(gguf_charsmap.in_pieces(pieces, in_bytes, exchanged, added.values()))
    for number in (*added, *(numbers[name] for name in names)):
        tokens[number] = tokens[number].replace(" ", "▁")
        kinds[number] = _BYTE if tokens[number] in names and not spells_bytes else _NORMAL
        scores[number] = 0.0
    return Vocabulary(
        "t5",
        "default",
        tokens,
        kinds,
        scores=scores,
        space_prefix=_prepends(told),
        merges_spaces=merges or any(step["type"] == "WhitespaceSplit" for step in steps),
        charsmap=charsmap,
        spells_bytes=spells_bytes,
    )


def _normalised(told: Mapping[str, Any]) -> tuple[bytes | None, dict[str, str], bool]:
    """Return SentencePiece's table of characters, single exchanges, and whether several spaces are read as one."""
    charsmap, exchanged, merges = None, {}, False
    for step in _parts(told["normalizer"], "normalizers"):
        pattern = step.get("pattern", {})
        if step["type"] == "Precompiled":
            charsmap = base64.b64decode(step["precompiled_charsmap"])
        elif step["type"] == "Strip" or pattern.get("Regex") == " {2,}":
            merges = True
        elif "String" in pattern:
            exchanged[pattern["String"]] = step["content"]
        else:
            raise _cuts_otherwise(told)
    return charsmap, exchanged, merges


def _crossed(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str]) -> bool:
    """Whether a piece lies across a place where the tokenizer cuts; where none does, cutting first changes nothing."""
    cut = tokenizer.backend_tokenizer.pre_tokenizer
    return cut is not None and any(len(cut.pre_tokenize_str(piece.replace("▁", " "))) > 1 for piece in pieces)


def _word_pieces(told: Mapping[str, Any], rows: int) -> Vocabulary:
    """Return BERT's tokenizer: llama.cpp marks the piece that begins a word, and BERT those that go on."""
    steps = _parts(told["normalizer"], "normalizers")
    by_kind = {step["type"]: step for step in steps}
    known = by_kind.get("BertNormalizer", {})
    if (
        set(by_kind) - {"NFD", "BertNormalizer"}
        or not (known.get("clean_text") and known.get("handle_chinese_chars"))
        or [step["type"] for step in _parts(told["pre_tokenizer"], "pretokenizers")] != ["BertPreTokenizer"]
        or told["model"]["continuing_subword_prefix"] != "##"
    ):
        raise _cuts_otherwise(told)
    strips = known["lowercase"] if known["strip_accents"] is None else known["strip_accents"]
    tokens, kinds = _tokens(told["model"]["vocab"], told["added_tokens"], rows)
    marked = [
        token if kind != _NORMAL else token.removeprefix("##") if token.startswith("##") else f"▁{token}"
        for token, kind in zip(tokens, kinds, strict=True)
    ]
    return Vocabulary(
        "bert",
        "default",
        marked,
        kinds,
        lowers=known["lowercase"],
        strips_accents=strips,
        decomposes=strips or "NFD" in by_kind,
    )
