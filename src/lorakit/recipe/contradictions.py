"""Rules between keys, each of which is fine by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lorakit.data.settings import DataSettings
from lorakit.recipe.reading import Document, KeyPath, dotted

_EITHER = (
    (("train", "tokens_per_step"), ("train", "rows_per_step")),
    (("method", "blocks"), ("method", "patterns")),
)
"""Pairs of which one says what the other says differently."""


def contradictions(document: Document) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the problem of each key that cannot stand beside another one."""
    for pair in _EITHER:
        if all(_get(document, path) is not None for path in pair):
            first, second = sorted(pair, key=lambda path: _order(document.places.get(path)))
            yield second, f"cannot stand beside {dotted(first)}{_at(document, first)}. Keep one of the two."
    yield from _streaming(document)
    method = _get(document, ("method", "name")) or "lora"
    if _get(document, ("optim", "name")) == "adafactor" and method in ("lora", "delta"):
        begins = {"lora": "one of each pair of LoRA starts", "delta": "an added matrix starts"}[method]
        problem = f"steps in proportion to the size of a weight, and {begins} at zero"
        yield ("optim", "name"), f"{problem}, where it would stay. Use adamw, or method: full."
    if _get(document, ("method", "dora")) is True and _get(document, ("method", "quantize_base")) is not None:
        problem = "divides by the length of each column of the base, which rounding changes"
        yield ("method", "dora"), f"{problem}. Leave it out, or method.quantize_base."
    if isinstance(document.places.get(("model", "name")), str) and _get(document, ("model", "revision")) is not None:
        named, pinned = document.places[("model", "name")], document.places.get(("model", "revision"))
        if isinstance(pinned, int):
            yield (
                ("model", "revision"),
                f"was written for another model than the one of {named}. Add --set model.revision=main.",
            )


def _streaming(document: Document) -> Iterator[tuple[KeyPath, str]]:
    if _get(document, ("data", "stream")) is not True:
        buffer = _get(document, ("data", "stream_buffer"))
        if buffer is not None and buffer != DataSettings.model_fields["stream_buffer"].default:
            yield ("data", "stream_buffer"), "is not read without data.stream. Remove it, or set data.stream: true."
        return
    if _get(document, ("train", "max_steps")) is None:
        yield ("data", "stream"), "needs train.max_steps, because the rows of a stream are not counted beforehand."
    evaluation = _get(document, ("data", "eval"))
    if evaluation is None or isinstance(evaluation, int | float):
        problem = "a stream cannot be split. Name a file of evaluation rows."
        yield ("data", "eval"), f"is {'left out' if evaluation is None else evaluation}; {problem}"


def _get(document: Document, path: KeyPath) -> Any:
    """The value at `path`, or None where there is none."""
    value: Any = document.values
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _order(place: int | str | None) -> tuple[bool, int]:
    return (not isinstance(place, int), place if isinstance(place, int) else 0)


def _at(document: Document, path: KeyPath) -> str:
    place = document.places.get(path)
    return f" ({f'line {place}' if isinstance(place, int) else place})" if place else ""
