"""The option `--set data.KEY=VALUE` of commands that read rows and train nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.errors import LorakitError

if TYPE_CHECKING:
    from lorakit.data.settings import DataSettings

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="data.KEY=VALUE", help="How rows are read, as in train: data.columns.text=body; repeatable."
    ),
]


def row_settings(target: str, data: str, origin: str, assignments: Sequence[str]) -> DataSettings:
    """Return how rows are read: the section `data` of a recipe, checked as for a training.

    Args:
        target: As typed.
        data: Where the rows are.
        origin: Option that said so, for messages.
        assignments: Values of `--set`.
    """
    from lorakit.recipe import load

    overrides = [("model.name", json.dumps(target), "TARGET"), ("data.train", json.dumps(data), origin)]
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{text!r} is not of the form data.key=value.", param_hint="--set")
        if not key.strip().startswith("data."):
            raise LorakitError(
                f"--set {shlex.quote(text)}: nothing is trained here, so only keys of data, such as data.columns.text, "
                f"can be set."
            )
        overrides.append((key, value, "--set"))
    return load(None, overrides).recipe.data
