"""What `lorakit adapter info` and `check` show: facts in two columns, layers alike in one line, a line a fault."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lorakit.cli import screen
from lorakit.data.readers.faults import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lorakit.adapters.facts import Facts, Layer
    from lorakit.workflows.checking import Checked

_WHAT = {
    "base": "base model",
    "lora": "LoRA adapter",
    "changed": "changed weights beside a base",
    "full": "whole fine-tuned model",
    "merged": "whole model, adapter merged in",
}
_MOST_LABELS = 20


def told(facts: Facts) -> list[RenderableType]:
    """Return the tables of one target."""
    table = screen.facts(_rows(facts))
    return [table, "", _layers(facts.layers)] if facts.layers else [table]


def looked_at(checked: Checked) -> list[RenderableType]:
    """Return a line for each check that holds and for each fault, and how many faults there are."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_column(overflow="fold")
    for one in checked.looked:
        told = ("✓" if one.told and one.held else "–", one.told or "not looked at")
        lines = [("✗", fault) for fault in one.faults] or [told]
        for number, (mark, words) in enumerate(lines):
            table.add_row("" if number else one.name, mark, Text(screen.safe(words)))
    return [table, "", counted(checked.faults, "fault") if checked.faults else "no faults"]


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    manifest, base = facts.manifest, facts.base
    yield "what", _WHAT[facts.form]
    for number, fault in enumerate(facts.faults):
        yield "" if number else "faults", fault
    if facts.faults:
        yield "", "lorakit adapter check looks at everything"
    if facts.form != "base":
        at = f" at {base['revision']}" if base["revision"] else ""
        yield "base", (base["identity"] or "not known") + at
        yield "weights of the base", base["fingerprint"] or "not known: no manifest.json"
    yield "size", f"{facts.parameters:,} numbers · {facts.bytes / 1e6:,.2f} MB"
    yield "licence", facts.licence or "not stated in README.md"
    if facts.peft is not None:
        yield "loads in PEFT", facts.peft.told
    if manifest is None:
        return
    # Ranks of single layers stand in the table of layers.
    yield "method", _listed({name: value for name, value in manifest.method.items() if not isinstance(value, dict)})
    yield "objective", _listed({"name": manifest.objective, **manifest.task, "labels": None})
    if manifest.head.labels:
        more = len(manifest.head.labels) - _MOST_LABELS
        yield "labels", ", ".join(manifest.head.labels[:_MOST_LABELS]) + (f" and {more:,} more" if more > 0 else "")
    if manifest.added_tokens:
        yield "new tokens", f"{len(manifest.added_tokens):,}"
    if manifest.stop_strings:
        yield "stops at", ", ".join(map(repr, manifest.stop_strings))
    if manifest.rounded is not None:
        yield "stored in", f"{manifest.rounded}, restored where it is read; PEFT alone does not read it"
    for number, done in enumerate(manifest.surgery):
        yield "" if number else "changed since", done
    for name, value in manifest.metrics.items():
        yield name.replace("_", " "), _plain(value)
    yield "training rows", manifest.data or "not known"
    yield "made with", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()) or "not known"
    yield "fast paths", "; ".join(manifest.speed) or "none"


def _layers(layers: tuple[Layer, ...]) -> Table:
    """Return a line for all layers whose names differ in numbers alone and that are stored alike; which, if not all."""
    groups: dict[tuple[str, str, int | None, float | None], list[Layer]] = {}
    for layer in layers:
        name = re.sub(r"(?<=\.)\d+(?=\.)", "*", layer.name)
        groups.setdefault((name, layer.kind, layer.rank, layer.scale), []).append(layer)
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = Counter(name for name, *_ in groups)
    table.add_column("weight", overflow="fold")
    for heading in ("layers", "rank", "scale", "numbers"):
        table.add_column(heading, justify="right")
    for (name, kind, rank, scale), members in groups.items():
        stored = kind if rank is None else str(rank)
        count = sum(layer.parameters for layer in members)
        factor = "" if scale is None else f"{scale:.4g}"
        called = _numbered([layer.name for layer in members]) if names[name] > 1 else name
        table.add_row(Text(screen.safe(called)), str(len(members)), stored, factor, f"{count:,}")
    return table


def _numbered(names: Sequence[str]) -> str:
    """Return one name for several that differ in numbers, with these: ``h.0-2,5.attn``."""
    words = (dict.fromkeys(column) for column in zip(*(name.split(".") for name in names), strict=True))
    return ".".join(
        ",".join(column) if len(column) == 1 else _ranges([int(word) for word in column]) for column in words
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers in words: ``0-2,5``."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in found)


def _listed(settings: Mapping[str, object]) -> str:
    given = {name: value for name, value in settings.items() if value not in (None, False, [], {})}
    return ", ".join(_plain(value) if name == "name" else f"{name} {_plain(value)}" for name, value in given.items())


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)
