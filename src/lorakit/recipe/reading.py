"""YAML to plain values, each with its line; strict where YAML is surprising.

Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2, section 10.3.2), without octal and
hexadecimal numbers: only ``true`` and ``false`` are booleans (``no`` is a text), ``1e-4`` is a number, and ``010``
and ``12:30`` are texts. Keys are texts. A key may stand once, tags are refused, and anchors cannot blow a text up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from lorakit.errors import Fault, RecipeError

KeyPath = tuple[str | int, ...]
"""Where a value stands: ``("method", "rank")``, ``("data", "train", 0)``."""

_MOST_VALUES = 5_000
_DEEPEST = 16

_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    _TAG + "null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), lambda text: None),
    _TAG + "bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), lambda text: text.lower() == "true"),
    _TAG + "int": (re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"), int),
    _TAG + "float": (
        re.compile(
            r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    ),
}
_CONVERT: dict[str, Callable[[str], Any]] = {tag: convert for tag, (_, convert) in _SCALARS.items()} | {
    _TAG + "str": str
}
CORE_RESOLVERS = {None: [(tag, pattern) for tag, (pattern, _) in _SCALARS.items()]}
"""The scalar rules as PyYAML takes them; the reader and the writer share them."""

_PLAINER = {
    r"'\t'": "a tab cannot indent here; use spaces.",
    "mapping values are not allowed": "a ':' too many; put a text that holds ': ' in quotes, or mend the indentation.",
    "another document": "a second document starts here (---); a recipe is one document.",
    "undefined alias": "an alias (*name) without its anchor; put a text that starts with * in quotes.",
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: Any = CORE_RESOLVERS


@dataclass
class Document:
    """What a YAML text says, and where it says so."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, int | str] = field(default_factory=dict)
    """Line of each key and list item, from 1; overrides put their origin (``--set``) here."""
    faults: list[Fault] = field(default_factory=list)


def scalar(text: str) -> Any:
    """Return what a plain YAML scalar means: None, a bool, an int, a float, or the text itself."""
    for pattern, convert in _SCALARS.values():
        if pattern.match(text):
            try:
                return convert(text)
            except ValueError:  # Python refuses to read integers of thousands of digits
                return text
    return text


def flow_value(text: str) -> Any:
    """Return the value of one line of YAML, or `text` itself where it is none.

    Args:
        text: A plain scalar; or a quoted text, a list in brackets or a mapping in braces.
    """
    if not text.startswith(("[", "{", '"', "'")):
        return scalar(text)
    try:
        document = read(f"value: {text}", "value")
    except RecipeError:
        return text
    return text if document.faults else document.values["value"]


def read(text: str, source: str) -> Document:
    """Read a recipe's YAML.

    Args:
        text: The YAML.
        source: Its name, for messages.

    Returns:
        Values, lines, and the faults that still let the rest be read: keys given twice, keys that are no words, tags.

    Raises:
        RecipeError: The text is not YAML, is no mapping, or is too large or too deep to be a recipe.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(source, [_syntax_fault(error, text)]) from None
    except RecursionError:
        raise RecipeError(source, [Fault("", "is nested too deep to be a recipe.")]) from None
    if root is None:
        return Document()
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a text"
        raise RecipeError(
            source,
            [Fault("", f"is {kind}; a recipe is lines of `key: value`, such as `model: tiny-gpt`.", _line(root))],
        )
    walk = _Walk(source)
    walk.document.values = walk.mapping(root, ())
    return walk.document


def _syntax_fault(error: yaml.YAMLError, text: str) -> Fault:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Fault("", f"holds a character that YAML does not allow (number {error.character:#x}).", line)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = " ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None)))) or str(error)
    plainer = next((plain for part, plain in _PLAINER.items() if part in said), f"not YAML: {said}.")
    return Fault(f"column {mark.column + 1}" if mark else "", plainer, mark.line + 1 if mark else None)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Walk:
    """Turns nodes into values, counting them: an alias shares its node, so a bomb is only seen while it unfolds."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.document = Document()
        self.count = 0

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(path, "a key must be a word.", line)
                continue
            here = (*path, key_node.value)
            if key_node.value in values:
                first = self.document.places[here]
                self.fault(here, f"is given twice, first on line {first}. Keep one.", line)
                continue
            self.document.places[here] = line
            values[key_node.value] = self.value(value_node, here, line)
        return values

    def value(self, node: yaml.Node, path: KeyPath, line: int) -> Any:
        self.count += 1
        if self.count > _MOST_VALUES:
            raise RecipeError(
                self.source, [Fault("", f"holds more than {_MOST_VALUES:,} values; no recipe does.", line)]
            )
        if len(path) > _DEEPEST:
            raise RecipeError(self.source, [Fault("", "is nested too deep to be a recipe.", line)])
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return self.items(node, path)
        if isinstance(node, yaml.ScalarNode) and node.tag in _CONVERT:
            try:
                return _CONVERT[node.tag](node.value)
            except ValueError:  # an explicit tag on a text that is none (`!!int x`), or thousands of digits
                return node.value
        tag = node.tag.replace(_TAG, "!!")
        self.fault(path, f"carries the tag {tag}; a recipe holds plain values only. Remove the tag.", line)
        return None

    def items(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        values = []
        for number, item in enumerate(node.value):
            self.document.places[(*path, number)] = _line(item)
            values.append(self.value(item, (*path, number), _line(item)))
        return values

    def fault(self, path: KeyPath, problem: str, line: int) -> None:
        self.document.faults.append(Fault(dotted(path), problem, line))


def dotted(path: KeyPath) -> str:
    """Return ``method.rank`` for ``("method", "rank")``; list items count from 0 as in ``data.train.0``."""
    return ".".join(str(part) for part in path)
