"""`lorakit adapter resize` and its kin: another adapter from given ones, and what that costs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import screen
from lorakit.cli.decoding_options import Base
from lorakit.data.readers.faults import counted
from lorakit.errors import LorakitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from lorakit.workflows.extracting import ByRank
    from lorakit.workflows.rewriting import Cost
    from lorakit.workflows.surgery import Cut

Source = Annotated[str, typer.Argument(metavar="TARGET", help="LoRA adapter or run: a folder, a .lora file, a Hub id.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder for the result.")]
Rank = Annotated[int | None, typer.Option(metavar="N", help="Rank of every layer.")]
Energy = Annotated[
    float | None,
    typer.Option(metavar="X", help="In (0, 1]: the lowest rank that holds this share of a layer's squared change."),
]
Data = Annotated[
    str | None, typer.Option(metavar="ROWS", help="Rows to measure the loss on, before and after: a file or a folder.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if lorakit wrote it.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="The folder alone.")]

_SHOWN = 6
"""Singular values of a layer that are shown, from the largest."""


class Width(StrEnum):
    """How the numbers of an adapter are stored."""

    float32 = "float32"
    bf16 = "bf16"
    int8 = "int8"
    int4 = "int4"


def resize(
    target: Source,
    output: Output,
    rank: Rank = None,
    energy: Energy = None,
    data: Data = None,
    base: Base = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write an adapter with the nearest pairs of lower rank.

    Example: lorakit adapter resize runs/answers --energy 0.95 -o answers-small
    """
    from lorakit.workflows.surgery import resize as work

    found = work(target, output, rank=rank, energy=energy, base=base, data=data, force=force)
    if not quiet:
        screen.tell(spectra(found.cuts))
        before = f"{found.parameters_before:,} numbers, {found.size_before / 1e6:,.2f} MB"
        show_cost(found.cost, [("before", before)])
    typer.echo(screen.safe(str(output)))


def extract(
    tuned: Annotated[
        str, typer.Option(metavar="MODEL", help="What was trained: a whole model, or a run without LoRA.")
    ],
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What the training began from; left out: what the run tells.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="New folder for the result.")
    ] = None,
    rank: Rank = None,
    energy: Energy = None,
    ranks: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Only tell what each of these ranks would cost; no folder.")
    ] = None,
    data: Data = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Draw a LoRA adapter from what training made of full matrices, layer by layer.

    The model may be wholly trained, or a run of `full`, `delta`, `freeze` or `head`, which knows its base.

    Example: lorakit adapter extract --tuned runs/delta --rank 16 -o delta-as-lora
    """
    from lorakit.workflows import extracting

    if ranks is not None:
        if (rank, energy, output) != (None, None, None):
            raise LorakitError("--ranks writes no folder: leave out --rank, --energy and -o, or --ranks itself.")
        screen.show(_by_rank(extracting.by_rank(tuned, _numbers(ranks), base=base, data=data)))
        return
    if output is None:
        raise LorakitError("give -o FOLDER for the adapter, or --ranks 1,2,4,8 for a table alone.")
    found = extracting.extract(tuned, output, base=base, rank=rank, energy=energy, data=data, force=force)
    if not quiet:
        screen.tell(spectra(found.cuts))
        rows = [("stored whole", counted(len(found.whole), "module"))] if found.whole else []
        for name, share in sorted(found.left_out.items(), key=lambda item: -item[1])[:_SHOWN]:
            rows.append(("left out", f"{name}: {share:.1%} of the squared change"))
        if len(found.left_out) > _SHOWN:
            rows.append(("", f"and {len(found.left_out) - _SHOWN} more weights"))
        show_cost(found.cost, rows)
    typer.echo(screen.safe(str(output)))


def quantize(
    target: Source,
    to: Annotated[Width, typer.Option(help="bf16 and float32 are read by PEFT alone too, int8 and int4 by lorakit.")],
    output: Output,
    data: Data = None,
    base: Base = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Store an adapter in fewer bits; it is restored wherever it is read, and computes as before.

    Example: lorakit adapter quantize runs/answers --to int8 -o answers-int8
    """
    from lorakit.workflows.storing import quantize as work

    found = work(target, output, to.value, base=base, data=data, force=force)
    if not quiet:
        show_cost(found.cost, [("before", f"{found.size_before / 1e6:,.2f} MB")])
    typer.echo(screen.safe(str(output)))


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise LorakitError(f"--ranks is {text!r}; give whole numbers with commas, such as 1,2,4,8.") from None


def _by_rank(found: ByRank) -> RenderableType:
    """Return a table of what was trained, and of an adapter of each rank."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("rank")
    for heading in ("numbers", "size", "loss"):
        table.add_column(heading, justify="right")
    before = next(iter(found.costs.values())).before
    trained = next(iter(before.values())) if before else None
    lines = [("as trained", found.parameters, found.size, trained)]
    lines += [(str(rank), cost.parameters, cost.size, cost.after) for rank, cost in found.costs.items()]
    for name, parameters, size, loss in lines:
        table.add_row(name, f"{parameters:,}", f"{size / 1e6:,.2f} MB", "–" if loss is None else f"{loss:.4f}")
    return table


def spectra(cuts: Sequence[Cut]) -> RenderableType:
    """Return a table of the singular values of each layer, and the rank it keeps."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("layer", overflow="fold")
    for heading in ("rank", "of", "energy kept"):
        table.add_column(heading, justify="right")
    table.add_column("singular values")
    for cut in cuts:
        more = " …" if len(cut.values) > _SHOWN else ""
        values = " ".join(f"{value:.2g}" for value in cut.values[:_SHOWN]) + more
        table.add_row(
            Text(screen.safe(cut.layer)), str(cut.rank), str(len(cut.values)), f"{cut.energy:.1%}", Text(values)
        )
    return table


def show_cost(cost: Cost, rows: Sequence[tuple[str, str]] = ()) -> None:
    """Show what was written, and what it loses."""
    for note in cost.notes:
        screen.say(note, style="yellow")
    on_rows = counted(cost.rows, "row")
    before = [(f"loss of {name}", f"{loss:.4f} nats on {on_rows}") for name, loss in (cost.before or {}).items()]
    after = ("loss", "not measured; give rows with --data")
    if cost.after is not None:
        after = ("loss of the result", f"{cost.after:.4f} nats")
    written = ("written", f"{cost.parameters:,} numbers, {cost.size / 1e6:,.2f} MB")
    screen.tell(screen.facts([*rows, written, *before, after]))
