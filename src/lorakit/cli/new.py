"""`lorakit new`: a checkpoint with random weights and a tokenizer of its own."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import screen


class Precision(StrEnum):
    """Precision in which weights are stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def new(
    architecture: Annotated[str, typer.Argument(metavar="ARCHITECTURE", help="bert, gpt2, llama or t5.")],
    tokenizer_from: Annotated[
        Path, typer.Option(metavar="FILE", help="Text file (UTF-8) the tokenizer is learned from.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder for the checkpoint.")],
    vocab_size: Annotated[int, typer.Option(metavar="N", help="Most tokens of the tokenizer.")] = 4096,
    layers: Annotated[int, typer.Option(metavar="N", min=1, help="Blocks; of t5 in each half.")] = 4,
    hidden: Annotated[
        int, typer.Option(metavar="N", min=1, help="Width of the hidden states; a multiple of --heads.")
    ] = 192,
    heads: Annotated[int, typer.Option(metavar="N", min=1, help="Attention heads of a block.")] = 6,
    positions: Annotated[int, typer.Option(metavar="N", min=2, help="Longest input in tokens.")] = 256,
    dtype: Annotated[
        Precision, typer.Option(metavar="NAME", help="Stored as float32 or bfloat16.")
    ] = Precision.float32,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if lorakit wrote it.")] = False,
) -> None:
    """Make a checkpoint with random weights and a tokenizer learned from your text, ready to be pretrained.

    Example: lorakit new gpt2 --tokenizer-from README.md --vocab-size 512 -o my-gpt
    """
    from lorakit.workflows.creating import new as create

    created = create(
        architecture,
        tokenizer_from,
        output,
        vocab_size=vocab_size,
        layers=layers,
        hidden=hidden,
        heads=heads,
        positions=positions,
        dtype=dtype.value,
        seed=seed,
        force=force,
    )
    for note in created.notes:
        screen.say(note)
    screen.say(
        f"{created.parameters:,} weights · {created.vocabulary:,} tokens in the vocabulary · "
        f"{created.size / 1e6:.1f} MB on disk"
    )
    command = ["lorakit", "train", "--model", str(output), "--data", str(tokenizer_from), "--method", "full"]
    screen.say(f"Next: {shlex.join(command)}", style=screen.ACCENT)
    typer.echo(screen.safe(str(output)))
