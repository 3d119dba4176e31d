"""What the sections accept, in words: read off the settings, so that it cannot differ from what they check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from lorakit.recipe.reading import KeyPath
from lorakit.recipe.settings import WORDS, Recipe

_PLURALS = {"integer": "whole numbers", "number": "numbers", "string": "texts"}
"""What the values of a mapping with free keys are called."""

Node = Mapping[str, Any]
"""A part of a JSON Schema."""


@cache
def members(section: str) -> dict[str, type[BaseModel]]:
    """Return the models that `section` may be, by name; one model without a name stands under the section's own.

    Empty for a word that is no section.
    """
    classes = _classes(Recipe.model_fields[section].annotation) if section in Recipe.model_fields else []
    return {model.model_fields["name"].default if _has_choice(model) else section: model for model in classes}


@cache
def places_of() -> dict[str, tuple[str, ...]]:
    """Return, for each key of a recipe, every dotted path at which it may stand; names of members left out."""
    found: dict[str, list[str]] = {}
    for section in Recipe.model_fields:
        found.setdefault(section, []).append(section)
        for model in members(section).values():
            for dotted in _keys(section, model):
                key = dotted.rpartition(".")[2]
                if key != "name" and dotted not in found.setdefault(key, []):
                    found[key].append(dotted)
    return {key: tuple(paths) for key, paths in found.items() if paths}


def siblings(path: KeyPath, chosen: str | None) -> tuple[str, ...]:
    """Return the keys that may stand where the last key of `path` stands.

    Args:
        path: Path of a key, known or not.
        chosen: Name of the member that its section is, where it has several.
    """
    if len(path) == 1:
        return tuple(Recipe.model_fields)
    if len(path) == 2 and chosen in members(str(path[0])):
        return tuple(members(str(path[0]))[chosen].model_fields)
    return tuple(dict.fromkeys(key for branch in _at(path[:-1]) for key in branch.get("properties", ())))


def choices(path: KeyPath) -> list[str]:
    """Return the words of which the value at `path` must be one; empty where it may be something else."""
    branches = _at(path)
    return [str(word) for branch in branches for word in branch.get("enum", [branch.get("const")]) if word is not None]


def kinds(path: KeyPath) -> set[str]:
    """Return the JSON types that the value at `path` may have."""
    return {branch.get("type", "") for branch in _at(path)}


def accepted(path: KeyPath) -> str:
    """Return what may stand at `path`, in words: ``a whole number from 1``."""
    if len(path) == 1:
        word = choices((path[0], WORDS[str(path[0])])) or ["a text"] if path[0] in WORDS else []
        return join([*word, "a mapping of its settings"])
    branches = [branch for branch in _at(path) if branch.get("type") != "null"]
    # A mapping last: its list of keys would swallow what follows.
    ordered = sorted(branches, key=lambda branch: branch.get("type") == "object")
    return join(list(dict.fromkeys(map(_words, ordered))))


def join(words: list[str]) -> str:
    """Return ``a``, ``a or b``, ``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, for editors: plain words for sections, descriptions from the docstrings."""
    schema = Recipe.model_json_schema()
    for section, key in WORDS.items():
        node = schema["properties"][section]
        words = {"type": "string"}
        if found := choices((section, key)):
            words["enum"] = found  # type: ignore[assignment]
        # Not oneOf, with which a section that names no member would match several.
        branches = node.pop("anyOf", None) or node.pop("oneOf", None) or [{"$ref": node.pop("$ref")}]
        node.pop("discriminator", None)
        node["anyOf"] = [words, *branches]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """Every settings model within `annotation`, also inside unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _classes(part)]


def _has_choice(model: type[BaseModel]) -> bool:
    return "name" in model.model_fields and not model.model_fields["name"].is_required()


def _keys(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    for key, field in model.model_fields.items():
        yield f"{prefix}.{key}"
        for inner in dict.fromkeys(_classes(field.annotation)):
            yield from _keys(f"{prefix}.{key}", inner)


@cache
def _schema() -> dict[str, Any]:
    return Recipe.model_json_schema()


@cache
def _at(path: KeyPath) -> list[Node]:
    """The alternatives that the schema allows at `path`; empty where it knows no such path."""
    branches: list[Node] = [_schema()]
    for part in path:
        inner = [_inside(branch, part) for branch in branches]
        branches = [alternative for node in inner if node is not None for alternative in _alternatives(node)]
    return [branch for number, branch in enumerate(branches) if branch not in branches[:number]]


def _inside(node: Node, part: str | int) -> Node | None:
    if isinstance(part, int):
        return node.get("items")
    if part in node.get("properties", {}):
        found: Node = node["properties"][part]
        return found
    others = node.get("additionalProperties")
    return others if isinstance(others, dict) else None


def _alternatives(node: Node) -> list[Node]:
    if "$ref" in node:
        return _alternatives(_schema()["$defs"][node["$ref"].rpartition("/")[2]])
    several = node.get("anyOf") or node.get("oneOf")
    return [alternative for each in several for alternative in _alternatives(each)] if several else [node]


def _words(node: Node) -> str:
    if "const" in node or "enum" in node:
        return join([str(word) for word in node.get("enum", [node.get("const")])])
    match node.get("type"):
        case "integer":
            return f"a whole number {_range(node)}".strip()
        case "number":
            return f"a number {_range(node)}".strip()
        case "boolean":
            return "true or false"
        case "string":
            return "a text that is not empty" if node.get("minLength") else "a text"
        case "array":
            return f"a list of {_words(node['items'])}" if "enum" in node["items"] else "a list"
        case _:
            if "properties" in node:
                return f"a mapping of {', '.join(node['properties'])}"
            return f"a mapping of names to {_PLURALS[node['additionalProperties']['type']]}"


def _range(node: Node) -> str:
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}
    return " and ".join(f"{word} {node[key]:,}" for key, word in bounds.items() if key in node)
