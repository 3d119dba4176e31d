"""`lorakit adapter`: what an adapter is, and what can be done with it. Every command imports its work when called."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lorakit.cli import screen
from lorakit.cli.decoding_options import Target

app = typer.Typer(no_args_is_help=True, help="Look into an adapter: what it is and what it was made from.")


@app.command()
def info(
    target: Target,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit on the Hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every layer.")] = False,
) -> None:
    """Say what an adapter is: its base, method, ranks, size, labels, scores, data and how it was made.

    No weight is read, neither its own nor of its base.

    Example: lorakit adapter info tiny-gpt
    """
    from lorakit.workflows.describing import info as describe

    found = describe(target, revision)
    if as_json:
        screen.emit(json.dumps(found.as_json(), ensure_ascii=False, indent=2) + "\n")
        return
    from lorakit.cli.adapter_tables import told

    screen.show(*told(found))
