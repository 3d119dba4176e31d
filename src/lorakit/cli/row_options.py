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

_OF_TRAINING = ("eval", "eval_rows", "stream", "stream_buffer")
_UNREAD = {"evaluate": _OF_TRAINING, "predict": (*_OF_TRAINING, "rows", "label_names")}
"""Command -> the keys of data that mean nothing to it."""


def row_settings(command: str, target: str, data: str, origin: str, assignments: Sequence[str]) -> DataSettings:
    """Return how rows are read: the section `data` of a recipe, checked as for a training.

    Args:
        command: That reads them, for messages; decides which keys it takes.
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
        _check_read(command, key.strip().split(".")[1], text, origin)
        overrides.append((key, value, "--set"))
    return load(None, overrides).recipe.data


def _check_read(command: str, key: str, text: str, origin: str) -> None:
    """Refuse a key of data that a recipe knows and `command` would pass over."""
    from lorakit.data.settings import DataSettings

    if key == "train":
        raise LorakitError(f"--set {shlex.quote(text)}: {command} is told by {origin} where rows are; leave out --set.")
    if key in _UNREAD[command]:
        read = [f"data.{name}" for name in DataSettings.model_fields if name not in ("train", *_UNREAD[command])]
        raise LorakitError(
            f"--set {shlex.quote(text)}: {command} does not read data.{key}; leave it out. It reads {', '.join(read)}."
        )
