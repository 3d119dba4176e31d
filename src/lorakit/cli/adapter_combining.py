"""`lorakit adapter combine`, `subtract` and `scale`: one adapter from several, or from a part of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import screen
from lorakit.cli.adapter_surgery import Data, Energy, Force, Output, Quiet, Rank, Source, show_cost
from lorakit.cli.decoding_options import Base
from lorakit.data.readers.faults import counted

if TYPE_CHECKING:
    from lorakit.workflows.combining import Combined, Taken


def combine(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET:WEIGHT...",
            help="LoRA adapters or runs, each with its weight, 1 where none is given; prompts are those of the first.",
        ),
    ],
    output: Output,
    how: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="cat: the exact sum; svd: cut to a rank; or PEFT's linear, dare, ties, ties_svd."
        ),
    ] = "cat",
    rank: Rank = None,
    energy: Energy = None,
    density: Annotated[
        float | None, typer.Option(metavar="X", help="In (0, 1]: share of numbers that dare and ties keep.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of what dare drops.")] = 0,
    data: Data = None,
    base: Base = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write one adapter from several of one base, each with a weight.

    Example: lorakit adapter combine runs/answers:0.7 runs/stories:0.3 -o both
    """
    from lorakit.workflows.combining import combine as work

    found = work(
        [weighted(one) for one in targets],
        output,
        how=how,
        rank=rank,
        energy=energy,
        density=density,
        seed=seed,
        base=base,
        data=data,
        force=force,
    )
    _show(found, output, quiet)


def subtract(
    target: Source,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="LoRA adapter of the same base: what is taken away.")],
    output: Output,
    data: Data = None,
    base: Base = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write the change of one adapter less that of another; ranks add up, the difference is exact.

    Example: lorakit adapter subtract runs/answers runs/stories -o answers-alone
    """
    from lorakit.workflows.combining import subtract as work

    _show(work(target, other, output, base=base, data=data, force=force), output, quiet)


def scale(
    target: Source,
    factor: Annotated[
        float,
        typer.Argument(metavar="FACTOR", help="Below 1 weakens, above 1 strengthens, below 0 reverses; not 0."),
    ],
    output: Output,
    data: Data = None,
    base: Base = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write an adapter whose change is multiplied by a factor.

    Example: lorakit adapter scale runs/answers 0.5 -o answers-half
    """
    from lorakit.workflows.combining import scale as work

    _show(work(target, factor, output, base=base, data=data, force=force), output, quiet)


def weighted(text: str) -> tuple[str, float]:
    """Return name and weight: a number behind the last colon, else 1.

    The colon of a drive (``C:/runs``) has none, nor has that of a file or folder with all of this name.
    """
    if Path(text).expanduser().exists():
        return text, 1.0
    name, colon, number = text.rpartition(":")
    try:
        return (name, float(number)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def _show(found: Combined, output: Path, quiet: bool) -> None:
    if not quiet:
        rows = [(f"{taken.weight:g} of {taken.name}", _told(taken)) for taken in found.taken]
        show_cost(found.cost, [*rows, ("result", _told(found.result))])
    typer.echo(screen.safe(str(output)))


def _told(taken: Taken) -> str:
    low, high = taken.ranks
    return f"{counted(taken.layers, 'layer')} of rank {low if low == high else f'{low} to {high}'}"
