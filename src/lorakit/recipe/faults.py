"""Every fault of a recipe at once, in words that say what was given and what is accepted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from lorakit.errors import Fault, nearest
from lorakit.recipe.contradictions import contradictions
from lorakit.recipe.elsewhere import FOREIGN
from lorakit.recipe.reading import Document, KeyPath, dotted, flow_value, scalar
from lorakit.recipe.schema import accepted, choices, join, kinds, members, places_of, siblings
from lorakit.recipe.settings import Recipe

_NOUNS = {"optim": "optimizer"}
_EXAMPLES: dict[KeyPath, str] = {
    ("model",): "name a checkpoint: `model: tiny-gpt`, or --model tiny-gpt.",
    ("data", "train"): "name the rows: `data: rows.csv`, or --data rows.csv.",
}
_LONGEST_QUOTE = 60
_BECAUSE = {"quantize_base": "weights that are kept rounded cannot learn themselves"}
"""Why a key stands beside some members alone, where one might expect more of them."""


def find_faults(document: Document) -> list[Fault]:
    """Return every fault of `document`, at most one for each key; an empty list means that it is a recipe.

    Args:
        document: What was read, its plain words put under their keys (`settings.spread`).
    """
    faults = list(document.faults)
    told = {fault.where for fault in faults}
    for path, problem in (*_refused(document.values), *contradictions(document)):
        where = dotted(path)
        if where not in told:
            told.add(where)
            place = document.places.get(path, document.places.get(path[:-1]) if len(path) > 1 else None)
            line, origin = (place, "") if isinstance(place, int) else (None, place or "")
            faults.append(Fault(where, problem, line, origin))
    return faults


def _refused(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What the settings refuse, each with its path."""
    try:
        Recipe.model_validate(values)
        return
    except ValidationError as error:
        found: dict[KeyPath, str] = {}
        for each in error.errors(include_url=False, include_context=False):
            path = _path(each["loc"], each["type"], values)
            if found.get(path) not in ("missing", "extra_forbidden"):
                found[path] = each["type"]
    # A union reports every alternative; the one whose shape fits is the one that got deeper.
    shallow = {path[:length] for path in found for length in range(len(path))}
    for path, kind in found.items():
        if path in shallow:
            continue
        if kind == "missing":
            yield path, f"is missing; {_EXAMPLES.get(path) or f'must be {accepted(path)}.'}"
        elif kind == "extra_forbidden":
            yield path, _unknown(path, values)
        elif kind.startswith("union_tag"):
            yield from _no_member(path, values)
        else:
            yield path, _wrong(path, _value(path, values))


def _path(location: KeyPath, kind: str, values: Any) -> KeyPath:
    """The path of an error of pydantic, freed of the labels that it inserts for alternatives of a union."""
    path: list[str | int] = []
    here: Any = values
    for number, part in enumerate(location):
        if number == 1 and len(members(str(location[0]))) > 1 and part == here.get("name"):
            continue
        if part in here if isinstance(here, dict) else isinstance(here, list) and isinstance(part, int):
            here = here[part]
            path.append(part)
    if kind == "missing":
        path.append(location[-1])
    return tuple(path)


def _value(path: KeyPath, values: Any) -> Any:
    for part in path:
        values = values[part]
    return values


def _wrong(path: KeyPath, value: Any) -> str:
    hint = ""
    if value is None and len(path) == 1 and not Recipe.model_fields[str(path[0])].is_required():
        hint = "Leave it out for the defaults."
    elif isinstance(value, float) and math.isinf(value):
        hint = "Infinity is not accepted here."
    elif isinstance(value, str):
        if isinstance(scalar(value), int | float):
            hint = "Take the quotes away."
        elif value.startswith(("[", "{")) and kinds(path) & {"array", "object"}:
            hint = _unread(value)
        elif "array" in kinds(path):
            hint = f"For one, write [{value}]."
        else:
            hint = nearest(value, choices(path))
    elif (
        isinstance(value, int | float) and "string" in kinds(path) and "number" not in kinds(path) and not choices(path)
    ):
        hint = "Put it in quotes to make it a text."
    return f"is {_shown(value)}; must be {accepted(path)}. {hint}".rstrip()


def _unread(text: str) -> str:
    """What to say of a text that begins as a list or a mapping and could not be read as one."""
    close, noun, kind = ("]", "bracket", "list") if text.startswith("[") else ("}", "brace", "mapping")
    closed = f"{text}{close}"
    if isinstance(flow_value(closed), list | dict):
        return f"The {noun} is not closed; write {closed}."
    return f"It begins as a {kind} and is none: close every {noun} and quote, and put texts that hold signs in quotes."


def _shown(value: Any) -> str:
    """What was given, short and in YAML's spelling."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return f"{value}".replace("inf", ".inf").replace("nan", ".nan")
        case str() | int() | float():
            text = str(value)
            text = text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
            return json.dumps(text, ensure_ascii=False) if isinstance(value, str) else text
        case list():
            return "a list"
        case _:
            return "a mapping"


def _no_member(path: KeyPath, values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Faults of a section whose `name` is no member's: the name, and the keys that no member reads."""
    section = str(path[0])
    given = values[section]
    yield (section, "name"), _wrong((section, "name"), given["name"])
    known = {key for model in members(section).values() for key in model.model_fields}
    for key in given:
        if key not in known:
            yield (section, key), _unknown((section, key), values)


def _unknown(path: KeyPath, values: dict[str, Any]) -> str:
    """What to say of a key that nothing reads: its right place where one can be guessed."""
    section, key = str(path[0]), str(path[-1])
    given = values[section]
    named = given.get("name") if isinstance(given, dict) else None
    chosen = named if isinstance(named, str) else None
    if len(path) == 2:
        readers = [name for name, model in members(section).items() if key in model.model_fields]
        if readers:
            noun = _NOUNS.get(section, section)
            others = join([repr(name) for name in readers])
            because = f": {_BECAUSE[key]}" if key in _BECAUSE else ""
            return f"is not read by {noun} {chosen!r}{because}. Remove it, or choose {noun} {others}."
    plain = key.lower().replace("-", "_")
    if plain in places_of():
        return f"unknown here; write {join(list(places_of()[plain]))}."
    if plain in FOREIGN:
        return f"unknown here; {FOREIGN[plain]}"
    beside = siblings(path, chosen)
    return f"unknown. {nearest(plain, beside) or _nearest_elsewhere(plain) or _listed(beside)}"


def _listed(keys: tuple[str, ...]) -> str:
    return f"Known here: {', '.join(keys)}." if keys else "Remove it."


def _nearest_elsewhere(key: str) -> str:
    """A guess at a misspelt key of another section, or of another trainer."""
    if close := get_close_matches(key, places_of(), n=1):
        return f"Did you mean {join(list(places_of()[close[0]]))}?"
    if close := get_close_matches(key, FOREIGN, n=1):
        return f"As {close[0]}: {FOREIGN[close[0]]}"
    return ""
