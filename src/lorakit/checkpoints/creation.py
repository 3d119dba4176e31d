"""New checkpoints: a tokenizer learned from text, and random weights of a chosen shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lorakit.checkpoints.finding import quiet
from lorakit.checkpoints.folders import check_destination, whole_folder
from lorakit.errors import CheckpointError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
"""Starts and ends a document, as in GPT-2; always id 0. There is no padding token."""

SMALLEST_VOCABULARY = 257
"""The 256 bytes, so that any text can be written, and `END_OF_TEXT`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a transformer."""

    layers: int
    """Blocks; at least 1."""
    hidden: int
    """Width D of the hidden states; a multiple of `heads`."""
    heads: int
    """Attention heads of a block; at least 1."""
    positions: int
    """Longest input in tokens; at least 2."""


@dataclass(frozen=True, slots=True)
class Created:
    """What was written."""

    folder: Path
    parameters: int
    """Weights, a tied one counted once."""
    vocabulary: int
    """Tokens of the tokenizer, and rows of the embedding matrix."""
    size: int
    """Bytes of all files of the folder."""
    notes: tuple[str, ...] = ()
    """What differs from what was asked: a sentence each."""


def _gpt2(shape: Shape, common: dict[str, Any]) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        n_layer=shape.layers,
        n_embd=shape.hidden,
        n_head=shape.heads,
        n_positions=shape.positions,
        # The same curve as GPT-2's own `gelu_new`, in one kernel where that takes eight.
        activation_function="gelu_pytorch_tanh",
        **common,
    )


def _llama(shape: Shape, common: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        # Three matrices of 8/3 D hold as many weights as the two of 4 D that they replace (Shazeer 2020,
        # arXiv:2002.05202, section 3); 32 keeps the rows aligned.
        intermediate_size=-(-8 * shape.hidden // 3 // 32) * 32,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        **common,
    )


ARCHITECTURES: dict[str, Callable[[Shape, dict[str, Any]], Any]] = {"gpt2": _gpt2, "llama": _llama}
"""Name -> maker of the transformers config, from the shape and the keys that every config shares."""


def create(
    folder: Path,
    architecture: str,
    documents: Iterable[str],
    shape: Shape,
    vocab_size: int = 4096,
    dtype: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
    force: bool = False,
) -> Created:
    """Write a transformers folder: config, random weights, and a tokenizer learned from `documents`.

    Args:
        folder: Must not exist, or be empty, unless `force`.
        architecture: A key of `ARCHITECTURES`.
        documents: Texts the tokenizer is learned from; read once.
        shape: Size of the model.
        vocab_size: Most tokens of the tokenizer; at least `SMALLEST_VOCABULARY`.
        dtype: Precision in which the weights are stored; they are drawn in float32.
        seed: The same seed, shape and documents give the same weights.
        force: Replace a folder that lorakit wrote, once the new one is whole.

    Raises:
        CheckpointError: The shape or the vocabulary cannot work, the architecture is not known, or the folder
            is taken.
    """
    check(architecture, shape, vocab_size)
    check_destination(folder, force)
    tokenizer = learn_tokenizer(documents, vocab_size, shape.positions)
    notes: tuple[str, ...] = ()
    if len(tokenizer) < vocab_size:
        notes = (f"The text gives {len(tokenizer):,} tokens, not {vocab_size:,}; a longer text gives more.",)
    model = _random_model(architecture, shape, len(tokenizer), dtype, seed)
    with whole_folder(folder, force) as aside, quiet():
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Created(folder, model.num_parameters(), len(tokenizer), size, notes)


def check(architecture: str, shape: Shape, vocab_size: int) -> None:
    """Raise CheckpointError where no model can be made of these numbers."""
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"architecture {architecture!r} cannot be made; choose one of {', '.join(ARCHITECTURES)}. "
            f"{nearest(architecture, ARCHITECTURES)}".rstrip()
        )
    if min(shape.layers, shape.hidden, shape.heads) < 1 or shape.positions < 2:
        raise CheckpointError(f"{shape}: layers, hidden and heads are at least 1, positions at least 2.")
    if shape.hidden % shape.heads:
        fitting = [heads for heads in range(1, shape.hidden + 1) if shape.hidden % heads == 0]
        raise CheckpointError(
            f"hidden is {shape.hidden} and heads is {shape.heads}: the heads share the width equally, so heads must "
            f"divide it; try heads {min(fitting, key=lambda heads: abs(heads - shape.heads))}."
        )
    if architecture == "llama" and shape.hidden // shape.heads % 2:
        raise CheckpointError(
            f"a llama head is {shape.hidden} / {shape.heads} = {shape.hidden // shape.heads} wide; rotary positions "
            f"turn pairs of features, so choose an even width."
        )
    if vocab_size < SMALLEST_VOCABULARY:
        raise CheckpointError(
            f"vocab-size is {vocab_size}; the 256 bytes and {END_OF_TEXT} need at least {SMALLEST_VOCABULARY}."
        )


def learn_tokenizer(documents: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909, algorithm 1; bytes as in GPT-2).

    Every byte is a token, so that no character of any language is lost. Digits stand alone: a number is spelled the
    same way wherever it occurs, and a small model can copy one it has never seen.

    Args:
        documents: Texts to count pairs in; one document is held at a time.
        vocab_size: Most tokens, `END_OF_TEXT` and the bytes included.
        max_length: Longest input of the model, in tokens; written into the tokenizer's configuration.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, model_max_length=max_length
    )


def _random_model(architecture: str, shape: Shape, vocabulary: int, dtype: str, seed: int) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    common = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0}
    config = ARCHITECTURES[architecture](shape, common)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.to(getattr(torch, dtype))
