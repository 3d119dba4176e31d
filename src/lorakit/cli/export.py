"""`lorakit export`: a target in the format of another program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import screen
from lorakit.cli.decoding_options import Base
from lorakit.data.readers.faults import counted
from lorakit.errors import LorakitError

if TYPE_CHECKING:
    from lorakit.workflows.exporting import Exported

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def export(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Run, adapter or model: folder, .lora file, Hub id.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="safetensors (merged, for transformers and vLLM), gguf (merged, for llama.cpp), gguf-lora (alone), "
            "ollama (gguf and Modelfile), onnx (merged, for onnxruntime).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PATH", help="New folder or file for the result.")],
    dtype: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Stored as f32, bf16, f16 or q8_0; left out: as the base is."),
    ] = None,
    shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of safetensors: most of a file of weights, 5GB if left out.")
    ] = None,
    base: Base = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="Rows to compare on; left out: the run's own, else a few shipped sentences."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if lorakit wrote it.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No comparison and no notes: the path alone.")] = False,
) -> None:
    """Write a run or adapter in the format of another program, read back there and compared before it is there.

    Example: lorakit export runs/answers --to gguf --dtype q8_0 -o answers.gguf
    """
    from lorakit.workflows.exporting import export as work

    size = None if shard_size is None else _bytes(shard_size)
    done = work(target, to, output, dtype, base=base, data=data, shard_size=size, force=force)
    if not quiet:
        for note in done.notes:
            screen.say(note, style="yellow")
        _show(done)
    typer.echo(screen.safe(str(output)))


def _bytes(text: str) -> int:
    """Return the bytes of a size such as ``500MB``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]B)?", text.upper())
    size = 0 if found is None else round(float(found[1]) * _UNITS[found[2] or ""])
    if size < 1:
        raise LorakitError(f"--shard-size is {text!r}; must be a size such as 500MB or 5GB.")
    return size


def _show(done: Exported) -> None:
    proof = done.proof
    rows = [
        ("written", f"{done.size / 1e6:,.1f} MB in {proof.dtype}"),
        ("read by", proof.runtime),
        ("compared with", f"the target in float32, on {counted(proof.texts, 'text')} ({proof.origin})"),
        ("largest difference", f"{proof.largest_difference:.1e} of {proof.compared} up to {proof.largest_logit:.1f}"),
        *([] if proof.same_text is None else [("same greedy text", f"{proof.same_text:.0%}")]),
        ("loss", f"{proof.loss_before:.4f} → {proof.loss_after:.4f}"),
    ]
    screen.tell(screen.facts(rows))
