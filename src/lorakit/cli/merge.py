"""`lorakit merge`: a whole model from a base and its adapter."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import screen
from lorakit.data.readers.faults import counted

if TYPE_CHECKING:
    from lorakit.workflows.merging import MergeReport


class Precision(StrEnum):
    """Precision in which weights are stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def merge(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Run or adapter: a folder, a .lora file, a Hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder for the merged model.")],
    dtype: Annotated[
        Precision | None,
        typer.Option(metavar="NAME", help="Stored as float32, bfloat16 or float16; left out: as the base is."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Folder or Hub id of the base model, where the adapter does not know it."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="Rows to compare on; left out: the run's own, else a few shipped sentences."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if lorakit wrote it.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No comparison and no notes: the folder alone.")] = False,
) -> None:
    """Fold an adapter into its base: a model folder that plain transformers loads, proved to say the same.

    Example: lorakit merge runs/answers -o answers-merged
    """
    from lorakit.workflows.merging import merge as fold

    report = fold(target, output, dtype.value if dtype is not None else None, base=base, force=force, data=data)
    if not quiet:
        for note in report.notes:
            screen.say(note, style="yellow")
        _show(report)
    typer.echo(screen.safe(str(output)))


def _show(report: MergeReport) -> None:
    rows = [
        ("merged model", f"{report.size / 1e6:,.1f} MB in {report.dtype}"),
        ("compared with", f"base and adapter in float32, on {counted(report.probes, 'text')} ({report.origin})"),
        ("largest difference", f"{report.largest_difference:.1e} of logits up to {report.largest_logit:.1f}"),
        ("mean KL", f"{report.mean_kl:.1e} nats"),
        ("same choice", f"{report.same_argmax:.1%}"),
        *_text(report),
        ("loss", f"{report.loss_before:.4f} → {report.loss_after:.4f}"),
    ]
    screen.tell(screen.facts(rows))


def _text(report: MergeReport) -> list[tuple[str, str]]:
    if report.same_text is None:
        return []
    return [("same greedy text", f"{report.same_text:.0%}, {counted(report.written, 'token')} in all")]
