"""The verb `new`: a checkpoint with random weights and a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lorakit.checkpoints.creation import Created, Shape, check, create
from lorakit.checkpoints.folders import check_destination
from lorakit.errors import CheckpointError


def new(
    architecture: str,
    tokenizer_from: Path,
    output: Path,
    *,
    vocab_size: int = 4096,
    layers: int = 4,
    hidden: int = 192,
    heads: int = 6,
    positions: int = 256,
    dtype: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
    force: bool = False,
) -> Created:
    """Make a checkpoint to pretrain: the tokenizer is learned from a text file, the weights are random.

    Args:
        architecture: `bert`, `gpt2`, `llama` or `t5`.
        tokenizer_from: Text file, UTF-8; two blank lines part its documents.
        output: Folder to write; must not exist, or be empty, unless `force`.
        vocab_size: Most tokens of the tokenizer; at least 257, for bert 161 and for t5 454.
        layers: Blocks, of t5 in each half; at least 1.
        hidden: Width of the hidden states; a multiple of `heads`.
        heads: Attention heads of a block; at least 1.
        positions: Longest input in tokens; at least 2.
        dtype: Precision in which the weights are stored.
        seed: Seed of the weights.
        force: Replace a folder that lorakit wrote, once the new one is whole.

    Raises:
        CheckpointError: The numbers cannot work, the file cannot be read or holds no text, or the folder is taken.
    """
    shape = Shape(layers, hidden, heads, positions)
    check(architecture, shape, vocab_size)
    check_destination(output, force, (tokenizer_from,))
    return create(output, architecture, _documents(tokenizer_from), shape, vocab_size, dtype, seed, force)


def _documents(file: Path) -> Iterator[str]:
    """Yield the documents of a text file, which two blank lines part; whole, so that line ends are counted too."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror}); --tokenizer-from takes a text file."
        ) from error
    if not text.strip():
        raise CheckpointError(f"{file} holds no text; a tokenizer is learned from some pages of the text to come.")
    yield from text.split("\n\n\n")
