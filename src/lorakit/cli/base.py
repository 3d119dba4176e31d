"""`lorakit base`: the base models at hand, and where they lie."""

from __future__ import annotations

from typing import Annotated

import typer

from lorakit.cli import screen

app = typer.Typer(no_args_is_help=True, help="List the base models at hand; print the folder of one.")


@app.command("list")
def list_bases() -> None:
    """List the built-in models and those in the Hub's cache on this computer.

    Example: lorakit base list
    """
    from lorakit.checkpoints.locating import builtins, cached_ids

    rows = [*((f"builtin:{name}", "built in") for name in builtins()), *((name, "cached") for name in cached_ids())]
    if not rows:
        screen.say("No base model is at hand; `lorakit train --model NAME` fetches one from the Hub.")
    width = max((len(name) for name, _ in rows), default=0)
    for name, where in rows:
        typer.echo(f"{screen.safe(name):<{width}}  {where}")


@app.command()
def path(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a built-in, or a Hub id.")],
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit on the Hub.")] = None,
) -> None:
    """Print the folder of a base model, for other programs; a Hub id is fetched into the cache first.

    Example: lorakit base path tiny-gpt
    """
    from lorakit.checkpoints.locating import locate

    located = locate(name, revision)
    for note in located.notes:
        screen.say(note, style="yellow")
    typer.echo(screen.safe(str(located.folder)))
