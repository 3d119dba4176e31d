"""`lorakit push`: a trained model or adapter to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import screen
from lorakit.cli.decoding_options import Base, Target
from lorakit.errors import LorakitError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lorakit.workflows.pushing import Pushed


def push(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files and the head of the card; nobody is contacted.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(metavar="ROWS", help="Measure on these rows: scores with intervals in the card.")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--card",
            metavar="KEY=VALUE",
            help="For the card: license, language, datasets or tags; may be repeated. [dim]--card license=mit[/dim]",
        ),
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit; left out: what it is.")
    ] = None,
    base: Base = None,
    revision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a TARGET on the Hub.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Put it in the place of another model.")] = False,
) -> None:
    """Put an adapter, a run or a merged model on the Hub, with its card; rows, secrets and paths stay here.

    Everything `lorakit adapter check` looks at is looked at first; a fault stops it. One commit, or none.

    Example: lorakit push runs/answers me/answers --private --dry-run
    """
    from lorakit.workflows.pushing import push as send

    pushed = send(
        target,
        name,
        private=private,
        dry_run=dry_run,
        force=force,
        message=message,
        data=data,
        given=dict(map(_pair, given or [])),
        base=base,
        revision=revision,
    )
    for note in pushed.notes:
        screen.say(note, style="yellow")
    if pushed.left:
        screen.say(f"stays here: {', '.join(pushed.left)}")
    if dry_run:
        screen.show(*_would_go(pushed))
        return
    screen.say(f"{len(pushed.files)} files, {sum(file.size for file in pushed.files) / 1e6:,.2f} MB: {pushed.message}")
    typer.echo(screen.safe(pushed.url or ""))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise LorakitError(f"--card {text}: KEY=VALUE is meant, as in --card license=mit.")
    return key, value


def _would_go(pushed: Pushed) -> Iterator[RenderableType]:
    from rich.text import Text

    width = max(len(file.name) for file in pushed.files)
    front, _, _ = pushed.card.removeprefix("---\n").partition("\n---\n")
    lines = [f"{file.name:<{width}}  {file.size:>14,} bytes" for file in pushed.files]
    for line in (*lines, "", *front.splitlines(), "", f"nothing was sent; {pushed.name} would get: {pushed.message}"):
        yield Text(screen.safe(line))
