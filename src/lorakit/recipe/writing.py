"""A resolved recipe as YAML: every value, and beside it where it came from."""

from __future__ import annotations

import math
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from lorakit.recipe.loading import LoadedRecipe, leaves
from lorakit.recipe.reading import CORE_RESOLVERS, KeyPath, dotted
from lorakit.recipe.settings import Recipe

_WIDEST = 48
_NO_FILES = ("hf://", "recipe:", "builtin:")


# With the rules of YAML 1.1 beside our own, a text such as "no" is quoted, whoever reads it.
_RESOLVERS = {**yaml.SafeDumper.yaml_implicit_resolvers, **CORE_RESOLVERS}


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: Any = _RESOLVERS

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # In double quotes a line break is written as \n, which keeps a value on the line of its comment.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text_node)


def resolved_yaml(loaded: LoadedRecipe, shared: bool = False) -> str:
    """Return the whole recipe as YAML with the origin of every value as a comment.

    Args:
        loaded: What `load` returned.
        shared: Write the last part alone of every path of this computer, for what others will read. Otherwise the
            text loads again to an equal recipe.
    """
    rows: list[tuple[str, str]] = []
    opened: KeyPath = ()
    for path, value in leaves(loaded.recipe):
        common = 0
        while common < min(len(path), len(opened)) - 1 and path[common] == opened[common]:
            common += 1
        rows.extend((f"{'  ' * depth}{_flow(path[depth])}:", "") for depth in range(common, len(path) - 1))
        written = _bare(path, value) if shared else value
        key = f"{'  ' * (len(path) - 1)}{_flow(path[-1])}: {_flow(written)}"
        rows.append((key, loaded.origins.get(dotted(path), "default")))
        opened = path
    width = max((len(text) for text, origin in rows if origin and len(text) <= _WIDEST), default=0)
    lines = (f"{text:<{width}}  # {origin}" if origin else text for text, origin in rows)
    return "".join(f"{line}\n" for line in (f"# resolved from {PureWindowsPath(loaded.source).name}", *lines))


def shared_values(recipe: Recipe) -> dict[str, Any]:
    """Return every value by its dotted key, of each path of this computer the last part alone."""
    return {dotted(path): _bare(path, value) for path, value in leaves(recipe)}


def _flow(value: Any) -> str:
    """`value` on one line of YAML."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
    )
    return str(text).removesuffix("\n").removesuffix("\n...")


def _bare(path: KeyPath, value: Any) -> Any:
    """`value` without the folders of this computer."""
    if path == ("model", "add_tokens"):
        return _bare_source(value) if isinstance(value, str) else value
    if path == ("model", "name"):
        return _last_part(value) if _is_local(value) else value
    if path[:2] in (("data", "train"), ("data", "eval")) and path[-1] in ("train", "eval", "path"):
        return _bare_source(value)
    return value


def _bare_source(value: Any) -> Any:
    match value:
        case str() if value != "-" and not value.startswith(_NO_FILES):
            return _last_part(value)
        case list():
            return [_bare_source(item) for item in value]
        case dict():
            return {**value, "path": _bare_source(value["path"])}
        case _:
            return value


def _is_local(name: str) -> bool:
    """Whether a model is named by a path: ``org/name`` is a Hub id unless a folder of that name is here."""
    if name.startswith(_NO_FILES):
        return False
    looks = name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1
    return looks or Path(name).exists()


def _last_part(path: str) -> str:
    """Last part of a path of any system; ``.`` and ``..`` are looked up."""
    return (PureWindowsPath(path).name.strip(".") and PureWindowsPath(path).name) or Path(path).resolve().name
