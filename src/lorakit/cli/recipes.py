"""`lorakit recipes`: the shipped recipes, and the check of one's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import screen
from lorakit.errors import LorakitError

app = typer.Typer(no_args_is_help=True, help="List, show, copy and check recipes: YAML files that describe a run.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a shipped recipe; `lorakit recipes list` names them.")
]


@app.command("list")
def list_recipes() -> None:
    """List the shipped recipes and what each is for.

    Example: lorakit recipes list
    """
    from lorakit.recipe import purpose, shipped_names

    width = max(len(name) for name in shipped_names())
    if not sys.stdout.isatty():
        for name in shipped_names():
            typer.echo(f"{name:<{width}}  {purpose(name)}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("recipe", "what it is for", box=None, pad_edge=False, header_style="dim")
    table.columns[0].style = screen.ACCENT
    for name in shipped_names():
        table.add_row(name, Text(purpose(name)))
    Console(highlight=False, color_system=screen.styles()).print(table)


@app.command()
def show(name: Name) -> None:
    """Print a shipped recipe as it is.

    Example: lorakit recipes show quickstart
    """
    from lorakit.recipe import shipped_text

    typer.echo(shipped_text(name), nl=False)


@app.command()
def copy(
    name: Name,
    destination: Annotated[
        Path | None, typer.Argument(metavar="DEST", help="New file, or a folder for it; left out: NAME.yaml here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Copy a shipped recipe, to make it your own.

    Example: lorakit recipes copy answers-lora mine.yaml
    """
    from lorakit.recipe import shipped_text

    text = shipped_text(name)
    target = destination or Path(f"{name}.yaml")
    target = target / f"{name}.yaml" if target.is_dir() else target
    try:
        with target.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise LorakitError(f"{target} already exists. Choose another name, or pass --force to replace it.") from None
    except OSError as error:
        raise LorakitError(f"cannot write {target}: {error.strerror}.") from None
    screen.say(f"Next: edit it, then lorakit train {target}", style=screen.ACCENT)
    typer.echo(screen.safe(str(target)))


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Recipes: files, or names of shipped ones.")],
) -> None:
    """Check recipes without reading a row or a model, and list every fault; leaves with 1 if there is any.

    Example: lorakit recipes validate quickstart
    """
    from lorakit.recipe import load

    faulty = False
    for file in files:
        try:
            source = load(file).source
        except LorakitError as error:
            faulty = True
            screen.print_error(error)
        else:
            typer.echo(f"{screen.safe(source)}: no faults")
    if faulty:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, with which an editor completes and checks it while you type.

    Example: lorakit recipes schema > recipe.schema.json
    """
    from lorakit.recipe import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
