"""New checkpoints: a tokenizer learned from text, and random weights of a chosen shape."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lorakit.checkpoints import vocabularies
from lorakit.checkpoints.finding import quiet
from lorakit.checkpoints.folders import check_destination, whole_folder
from lorakit.errors import CheckpointError, nearest


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a transformer."""

    layers: int
    """Blocks, of an encoder-decoder so many in each half; at least 1."""
    hidden: int
    """Width D of the hidden states; a multiple of `heads`."""
    heads: int
    """Attention heads of a block; at least 1."""
    positions: int
    """Longest input in tokens; at least 2. T5 itself has no bound; there it is the tokenizer's."""


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


@dataclass(frozen=True, slots=True)
class Architecture:
    """What tells one kind of model from another."""

    config: Callable[[Shape, int], Any]
    """Makes the transformers config from the shape and the number of tokens."""
    model: str
    """Name of the Auto class of transformers that makes the model as it is pretrained."""
    vocabulary: vocabularies.Kind


def _bert(shape: Shape, tokens: int) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=tokens,
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=shape.positions,
        pad_token_id=vocabularies.BERT_CONTROLS.index("[PAD]"),
    )


def _gpt2(shape: Shape, tokens: int) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=tokens,
        bos_token_id=0,
        eos_token_id=0,
        n_layer=shape.layers,
        n_embd=shape.hidden,
        n_head=shape.heads,
        n_positions=shape.positions,
        # The same curve as GPT-2's own `gelu_new`, in one kernel where that takes eight.
        activation_function="gelu_pytorch_tanh",
    )


def _llama(shape: Shape, tokens: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=tokens,
        bos_token_id=0,
        eos_token_id=0,
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        intermediate_size=_gated(shape.hidden),
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
    )


def _t5(shape: Shape, tokens: int) -> Any:
    from transformers import T5Config

    return T5Config(
        vocab_size=tokens,
        num_layers=shape.layers,
        num_decoder_layers=shape.layers,
        d_model=shape.hidden,
        num_heads=shape.heads,
        d_kv=shape.hidden // shape.heads,
        d_ff=_gated(shape.hidden),
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=True,
        pad_token_id=vocabularies.T5_CONTROLS.index("<pad>"),
        eos_token_id=vocabularies.T5_CONTROLS.index("</s>"),
        decoder_start_token_id=vocabularies.T5_CONTROLS.index("<pad>"),
    )


def _gated(hidden: int) -> int:
    """Return the width of a gated feed-forward layer.

    Three matrices of 8/3 D hold as many weights as the two of 4 D that they replace (Shazeer 2020, arXiv:2002.05202,
    section 3); 32 keeps the rows aligned.
    """
    return -(-8 * hidden // 3 // 32) * 32


ARCHITECTURES = {
    "bert": Architecture(_bert, "AutoModelForPreTraining", "word_pieces"),
    "gpt2": Architecture(_gpt2, "AutoModelForCausalLM", "byte_pairs"),
    "llama": Architecture(_llama, "AutoModelForCausalLM", "byte_pairs"),
    "t5": Architecture(_t5, "AutoModelForSeq2SeqLM", "unigram"),
}
"""What `lorakit new` makes, by name."""


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
        vocab_size: Most tokens of the tokenizer; at least `vocabularies.SMALLEST` of its kind.
        dtype: Precision in which the weights are stored; they are drawn in float32.
        seed: The same seed, shape and documents give the same weights.
        force: Replace a folder that lorakit wrote, once the new one is whole.

    Raises:
        CheckpointError: The shape or the vocabulary cannot work, the architecture is not known, or the folder
            is taken.
    """
    check(architecture, shape, vocab_size)
    check_destination(folder, force)
    tokenizer = vocabularies.learn(ARCHITECTURES[architecture].vocabulary, documents, vocab_size, shape.positions)
    notes: tuple[str, ...] = ()
    if len(tokenizer) < vocab_size:
        notes = (f"The text gives {len(tokenizer):,} tokens, not {vocab_size:,}; a longer text gives more.",)
    model = _random_model(architecture, shape, len(tokenizer), dtype, seed)
    # DeepSpeed, where it is installed, greets whoever saves a model.
    with whole_folder(folder, force) as aside, quiet(), redirect_stdout(sys.stderr):
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for file in aside.glob("*.safetensors"):
            # The library leaves its files to their owner alone.
            shutil.copymode(aside / "config.json", file)
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
    kind = ARCHITECTURES[architecture].vocabulary
    if vocab_size < vocabularies.SMALLEST[kind]:
        raise CheckpointError(
            f"vocab-size is {vocab_size}; {vocabularies.WHAT_IT_HOLDS[kind]} need at least "
            f"{vocabularies.SMALLEST[kind]}."
        )


def _random_model(architecture: str, shape: Shape, tokens: int, dtype: str, seed: int) -> Any:
    import torch
    import transformers

    made = ARCHITECTURES[architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, made.model).from_config(made.config(shape, tokens), dtype=torch.float32)
    return model.to(getattr(torch, dtype))
