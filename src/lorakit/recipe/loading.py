"""From a file, a shipped recipe or nothing, and the options of a command, to a checked `Recipe`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorakit.errors import Fault, LorakitError, RecipeError, nearest
from lorakit.methods.settings import default_learning_rate
from lorakit.recipe.faults import find_faults
from lorakit.recipe.reading import Document, KeyPath, dotted, flow_value, read
from lorakit.recipe.schema import choices, kinds
from lorakit.recipe.settings import WORDS, Recipe, spread
from lorakit.recipe.shipped import shipped_names, shipped_text

Override = tuple[str, str, str]
"""Dotted key, value as text, and where it came from: ``("method.rank", "4", "--set")``."""

_LARGEST = 1_000_000
_TAGGED = (".conll", ".bio", ".iob")
_ROWS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt", ".md", ".xlsx", ".gz", ".zip", *_TAGGED)


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A recipe, and where each of its values came from."""

    recipe: Recipe
    origins: Mapping[str, str]
    """Dotted key -> ``line 6``, ``--set``, ``--lr``, ``default`` or ``default of method lora``."""
    source: str
    """File as it was named, ``quickstart.yaml`` for a shipped recipe, ``the command line`` for none."""


def load(path_or_name: str | Path | None = None, overrides: Sequence[Override] = ()) -> LoadedRecipe:
    """Read a recipe, put the options on top, and check all of it.

    Relative paths in it are relative to the current folder, as on the command line, wherever the recipe lies.

    Args:
        path_or_name: A YAML file; or, where there is none of that name, a shipped recipe; None: options alone.
        overrides: Options in order; a later one wins. A value is read by the scalar rules of YAML, or as a list in
            brackets or a mapping in braces, unless its key takes texts only.

    Raises:
        RecipeError: Every fault of the file and the options together.
        LorakitError: There is no such recipe, or it cannot be read.
    """
    text, source = _text(path_or_name)
    document = read(text, source)
    _spread(document)
    for key, value, origin in overrides:
        _override(document, key, value, origin)
    recipe = _checked(document, source)
    origins = {dotted(path): _origin(document.places.get(path)) for path, _ in leaves(recipe)}
    objective = recipe.objective.name if recipe.objective is not None else None
    return with_default_rate(LoadedRecipe(recipe, origins, source), objective)


def with_default_rate(loaded: LoadedRecipe, objective: str | None, width: int | None = None) -> LoadedRecipe:
    """Return the recipe with the learning rate that fits method, `objective` and `width`, where nobody named one.

    Called again once rows and checkpoint have decided what the recipe leaves open.
    """
    recipe, key = loaded.recipe, "optim.learning_rate"
    if recipe.optim.learning_rate is not None and not loaded.origins.get(key, "").startswith("default"):
        return loaded
    rate, origin = default_learning_rate(recipe.method.name, objective, width)
    optim = recipe.optim.model_copy(update={"learning_rate": rate})
    return replace(loaded, recipe=recipe.model_copy(update={"optim": optim}), origins={**loaded.origins, key: origin})


def check(values: Mapping[str, Any], source: str = "the recipe") -> Recipe:
    """Return the recipe that `values` describe, as they would stand in a YAML file.

    Raises:
        RecipeError: Every fault together, without lines.
    """
    document = Document(values=dict(values))
    _spread(document)
    return _checked(document, source)


def leaves(recipe: Recipe) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value of `recipe` with its path, sections in order, the name of a section first."""
    yield from _leaves(recipe.model_dump(), ())


def _leaves(values: dict[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for key in sorted(values, key=lambda key: key != "name"):
        value = values[key]
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _text(path_or_name: str | Path | None) -> tuple[str, str]:
    """The YAML of a recipe and the name to call it by."""
    if path_or_name is None:
        return "", "the command line"
    path, name = Path(path_or_name), str(path_or_name)
    if name in shipped_names() and not path.is_file():
        return shipped_text(name), f"{name}.yaml"
    if path.suffix.lower() in _ROWS:
        raise LorakitError(f"{name} looks like rows, not like a recipe. Give rows with: --data {name}")
    content = _content(path)
    try:
        return content.decode("utf-8-sig"), name
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(name, [Fault("", "is not UTF-8 text. Save the file as UTF-8.", line)]) from None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise LorakitError(_not_found(path)) from None
    except IsADirectoryError:
        raise LorakitError(f"{path} is a folder; name a YAML file, or a shipped recipe.") from None
    except (OSError, ValueError) as error:
        raise LorakitError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}.") from None
    if len(content) > _LARGEST:
        raise LorakitError(f"{path} is larger than {_LARGEST:,} bytes, so it is no recipe. Rows are given with --data.")
    return content


def _not_found(path: Path) -> str:
    try:
        files = sorted(file.name for pattern in ("*.yaml", "*.yml") for file in path.parent.glob(pattern))
    except OSError:
        files = []
    hint = nearest(path.name, files) or nearest(path.stem, shipped_names())
    names = ", ".join(shipped_names())
    return f"there is no recipe {str(path)!r}, neither a file nor a shipped one ({names}). {hint}".rstrip()


def _spread(document: Document) -> None:
    """Put plain words under their keys, and add the empty `data` whose `train` is then what is missing."""
    words = {section for section in WORDS if not isinstance(document.values.get(section), dict | list | None)}
    document.values = spread({"data": {}, **document.values})
    for section in words:
        if (section,) in document.places:
            document.places[(section, WORDS[section])] = document.places[(section,)]


def _override(document: Document, key: str, text: str, origin: str) -> None:
    """Put one option on top of `document`."""
    path: KeyPath = tuple(key.strip().split("."))
    # The spaces of ``key = value`` belong to the equals sign; all others were typed to be there.
    value = _option_value(path, text.lstrip() if key != key.rstrip() else text)
    if len(path) == 1 and path[0] in WORDS and not isinstance(value, dict | list | None):
        path = (path[0], WORDS[str(path[0])])
    node = document.values
    for part in path[:-1]:
        if not isinstance(node.get(str(part)), dict):
            node[str(part)] = {}
        node = node[str(part)]
    node[str(path[-1])] = value
    document.places = {place: at for place, at in document.places.items() if place[: len(path)] != path}
    for length in range(1, len(path)):
        document.places.setdefault(path[:length], origin)
    for inner in _inner(path, value):
        document.places[inner] = origin
    document.values = spread(document.values)


def _option_value(path: KeyPath, text: str) -> Any:
    """What an option means: where a text is accepted and a number is not, ``123`` is a text, with spaces as typed."""
    word = (path[0], WORDS[str(path[0])]) if len(path) == 1 and path[0] in WORDS else path
    value, takes = flow_value(text.strip()), kinds(word)
    numbers = {bool: {"boolean"}, int: {"integer", "number"}, float: {"number"}}.get(type(value))
    is_no_number = numbers is not None and not numbers & takes
    is_space = text.isspace() and "null" not in takes
    if "string" in takes and not choices(word) and (is_no_number or is_space or value == text.strip()):
        return text
    return value


def _inner(path: KeyPath, value: Any) -> Iterator[KeyPath]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in items:
        yield from _inner((*path, part), inner)


def _checked(document: Document, source: str) -> Recipe:
    faults = find_faults(document)
    if faults:
        raise RecipeError(source, faults)
    return Recipe.model_validate(document.values)


def _origin(place: int | str | None) -> str:
    return "default" if place is None else f"line {place}" if isinstance(place, int) else place
