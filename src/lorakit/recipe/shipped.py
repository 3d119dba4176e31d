"""The recipes that come with the package: one short YAML file a job."""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from lorakit.errors import LorakitError, nearest


def _folder() -> Traversable:
    return resources.files("lorakit") / "recipes"


@cache
def shipped_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes, sorted; the quickstart first."""
    names = [entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml")]
    return tuple(sorted(names, key=lambda name: (name != "quickstart", name)))


def shipped_text(name: str) -> str:
    """Return the YAML of the shipped recipe `name`.

    Raises:
        LorakitError: There is none of that name.
    """
    if name not in shipped_names():
        hint = nearest(name, shipped_names())
        known = f"Shipped are {', '.join(shipped_names())}."
        raise LorakitError(" ".join(filter(None, (f"there is no shipped recipe {name!r}.", hint, known))))
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def purpose(name: str) -> str:
    """Return the first comment line of the shipped recipe `name`: what it is for."""
    return shipped_text(name).partition("\n")[0].lstrip("# ")
