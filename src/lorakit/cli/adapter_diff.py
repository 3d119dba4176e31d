"""`lorakit adapter diff`: how far two adapters of one base are apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import screen
from lorakit.cli.adapter_surgery import Source
from lorakit.cli.decoding_options import Base
from lorakit.data.readers.faults import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.table import Table

    from lorakit.workflows.differing import Difference, LayerApart

_WIDEST = 40
"""Columns for the end of a prompt."""


def diff(
    target: Source,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="LoRA adapter of the same base to compare it with.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Compare the next token after this text; may be given again."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="Rows to compare all predictions and the loss on: a file or a folder."),
    ] = None,
    base: Base = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every layer.")] = False,
) -> None:
    """Say how far two adapters of one base are apart: by layer the length of each change and the angle between them.

    With --prompt or --data also how far what they say next is apart: the Kullback-Leibler divergence of the second
    one's distribution from the first one's, in nats, and whether the most probable token is another.

    Example: lorakit adapter diff runs/answers runs/stories --prompt "Once upon"
    """
    from lorakit.workflows.differing import diff as work

    found = work(target, other, prompts=prompt or [], data=data, base=base)
    for note in found.notes:
        screen.say(note, style="yellow")
    if as_json:
        screen.emit(json.dumps(found.as_json(), ensure_ascii=False, indent=2) + "\n")
        return
    screen.show(*_told(found))


def _told(found: Difference) -> Iterator[RenderableType]:
    from rich.text import Text

    for letter, name in zip("AB", found.names, strict=True):
        yield Text(f"{letter}  {screen.safe(name)}")
    yield ""
    yield _layers(found)
    if found.parts:
        alike = sum(found.parts.values())
        yield ""
        yield f"stored whole beside the pairs: {alike} of {counted(len(found.parts), 'weight')} the same in both"
    if found.prompts:
        yield ""
        yield _prompts(found)
    rows = found.on_rows
    if rows is not None:
        yield ""
        yield f"{counted(rows.rows, 'row')}: loss of A {rows.losses[0]:.4f} nats, of B {rows.losses[1]:.4f}"
        if rows.predictions:
            share = rows.changed / rows.predictions
            yield (
                f"{counted(rows.predictions, 'prediction')}: divergence {rows.divergence:.4f} nats in the mean, "
                f"{rows.changed:,} most probable ones changed ({share:.1%})"
            )


def _layers(found: Difference) -> Table:
    from rich.text import Text

    table = _table("layer", ("norm of A", "norm of B", "cosine"))
    for one in found.layers:
        table.add_row(Text(screen.safe(one.layer)), *_numbers(one))
    table.add_row("all layers", *_numbers(found.whole))
    return table


def _numbers(one: LayerApart) -> tuple[str, ...]:
    norms = (f"{norm:.4g}" if norm else "–" for norm in one.norms)
    return (*norms, "–" if one.cosine is None else f"{one.cosine:.3f}")


def _prompts(found: Difference) -> Table:
    from rich.text import Text

    from lorakit.cli.layouts import end
    from lorakit.cli.steps import StepTable

    shown = StepTable(found.target.tokenizer, found.target.eos_ids).token
    table = _table("prompt", ("divergence", "A says", "B says", "top token"))
    for one in found.prompts:
        said = [Text(shown(token)) for token in one.tops]
        text = Text(end(screen.safe(one.prompt).replace("\n", "␤"), _WIDEST))
        table.add_row(
            text, f"{one.divergence:.4f} nats", *said, "the same" if one.tops[0] == one.tops[1] else "another"
        )
    return table


def _table(first: str, others: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right")
    return table
