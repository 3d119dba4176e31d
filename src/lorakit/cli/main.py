"""The application: every command is a file of this folder, and none imports torch before it is called."""

from __future__ import annotations

from typing import Annotated

import typer

import lorakit
from lorakit.cli import adapter, base, recipes, screen
from lorakit.cli.chat import chat
from lorakit.cli.evaluate import evaluate
from lorakit.cli.export import export
from lorakit.cli.generate import generate
from lorakit.cli.merge import merge
from lorakit.cli.new import new
from lorakit.cli.predict import predict
from lorakit.cli.push import push
from lorakit.cli.train import train

if screen.styles() is None:
    # Typer draws the pages of help itself.
    from typer import rich_utils

    rich_utils.COLOR_SYSTEM = None

app = typer.Typer(
    name="lorakit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lorakit {lorakit.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Fine-tune a pretrained language model on your own data, share a small adapter, write text with it."""


app.command()(train)
app.command()(generate)
app.command()(predict)
app.command()(chat)
app.command()(evaluate)
app.command()(merge)
app.command()(push)
app.command()(export)
app.command()(new)
app.add_typer(adapter.app, name="adapter")
app.add_typer(base.app, name="base")
app.add_typer(recipes.app, name="recipes")
