"""`lorakit adapter`: what an adapter is, and what can be done with it. Every command imports its work when called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import adapter_combining, adapter_diff, adapter_surgery, screen
from lorakit.cli.adapter_surgery import Force
from lorakit.cli.decoding_options import Base, Target

app = typer.Typer(
    no_args_is_help=True, help="Look into an adapter, check it, hand it over as one file, make another from it."
)

Revision = Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit on the Hub.")]


@app.command()
def info(
    target: Target,
    base: Base = None,
    revision: Revision = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every layer.")] = False,
) -> None:
    """Say what an adapter is: its base, method, ranks, size, labels, scores, data and how it was made.

    No weight is read, neither its own nor of its base.

    Example: lorakit adapter info tiny-gpt
    """
    from lorakit.workflows.describing import info as describe

    found = describe(target, revision, base)
    if as_json:
        screen.emit(json.dumps(found.as_json(), ensure_ascii=False, indent=2) + "\n")
        return
    from lorakit.cli.adapter_tables import told

    screen.show(*told(found))


@app.command()
def check(
    target: Target,
    base: Base = None,
    revision: Revision = None,
) -> None:
    """Look for everything that can be wrong with an adapter, a run or a model; leaves with 1 if anything is.

    Hashes, settings, labels, the weights of the base, every tensor, tokenizer, stop tokens, template, whether plain
    PEFT or transformers gives the same scores, and whether a file holds a secret or a path of this computer.

    Example: lorakit adapter check tiny-gpt
    """
    from lorakit.cli.adapter_tables import looked_at
    from lorakit.workflows.checking import check as look

    found = look(target, base, revision)
    screen.show(*looked_at(found))
    if found.faults:
        raise typer.Exit(1)


@app.command()
def pack(
    target: Target,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="New file, NAME.lora.")],
    difference: Annotated[
        bool, typer.Option("--difference", help="Store a whole model as its difference to the base, compressed.")
    ] = False,
    base: Base = None,
    revision: Revision = None,
    force: Force = False,
) -> None:
    """Put what is shared of an adapter, a run or a model into one file, which every command takes as it is.

    Rows, states of training and local.json with its paths stay behind; a secret or a path in a file is refused.

    Example: lorakit adapter pack tiny-gpt -o tiny-gpt.lora
    """
    from lorakit.workflows.packing import pack as write

    packed = write(target, output, force, revision, difference=difference, base=base)
    instead = f" instead of {packed.whole / 1e6:,.2f} MB" if difference else ""
    screen.say(f"{len(packed.names)} files, {packed.size / 1e6:,.2f} MB{instead}: {', '.join(packed.names)}")
    if packed.left:
        screen.say(f"stayed behind: {', '.join(packed.left)}")
    typer.echo(screen.safe(str(output)))


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .lora file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder.")],
    base: Base = None,
    force: Force = False,
) -> None:
    """Take a .lora file apart into a folder, each file held to its hash; nothing is written anywhere else.

    Example: lorakit adapter unpack tiny-gpt.lora -o tiny-gpt-unpacked
    """
    from lorakit.workflows.packing import unpack as write

    packed = write(file, output, force, base)
    screen.say(f"{len(packed.names)} files: {', '.join(packed.names)}")
    typer.echo(screen.safe(str(output)))


app.command()(adapter_surgery.resize)
app.command()(adapter_surgery.extract)
app.command()(adapter_combining.combine)
app.command()(adapter_combining.subtract)
# A factor below 0 begins like an option.
app.command(context_settings={"ignore_unknown_options": True})(adapter_combining.scale)
app.command()(adapter_diff.diff)
app.command()(adapter_surgery.quantize)
