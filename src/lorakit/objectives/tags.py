"""Words and their tags: which words make an entity, which tags nothing begins, and how running text is cut into words.

Tags are read as IOB2 (Tjong Kim Sang and Veenstra 1999, arXiv:cs/9907006, section 2.1): ``B-X`` begins an entity X,
``I-X`` goes on with it, anything else belongs to none. Plain tags, such as parts of speech, are left as they are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

OUTSIDE = "O"
"""Tag of a word that belongs to no entity."""


class Entity(NamedTuple):
    """Words that name one thing."""

    label: str
    first: int
    """Number of its first word."""
    end: int
    """Number of the word behind its last one."""


def repaired(tags: Sequence[str]) -> tuple[list[str], list[int]]:
    """Let every inside tag that nothing begins begin an entity, which also turns IOB1 into IOB2.

    Returns:
        The tags, and the numbers of the words whose tag was broken.
    """
    mended: list[str] = []
    broken: list[int] = []
    open_label = None
    for number, tag in enumerate(tags):
        position, label = _parts(tag)
        if position == "I" and label != open_label:
            broken.append(number)
            tag = f"B-{label}"
        mended.append(tag)
        open_label = label if position else None
    return mended, broken


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that tags describe, broken tags repaired."""
    found: list[Entity] = []
    for number, tag in enumerate(repaired(tags)[0]):
        position, label = _parts(tag)
        if position == "B":
            found.append(Entity(label, number, number + 1))
        elif position == "I":
            found[-1] = found[-1]._replace(end=number + 1)
    return found


def in_order(tags: set[str]) -> list[str]:
    """Return tags sorted, ``O`` before all others."""
    return sorted(tags, key=lambda tag: (tag != OUTSIDE, tag))


def word_borders(text: str) -> list[tuple[int, int]]:
    """Cut running text into words: begin and end of each, in characters.

    Letters, digits and underscores in a row are one word and every other character stands alone; marks, format
    characters, and what a zero-width joiner binds (families of emoji) stay with the character before them.
    """
    borders: list[tuple[int, int]] = []
    open_kind = ""
    for place, character in enumerate(text):
        kind = _kind(character)
        bound = kind == "extends" or (place > 0 and text[place - 1] == "\u200d")
        if open_kind and (bound or kind == open_kind == "word"):
            borders[-1] = (borders[-1][0], place + 1)
            continue
        if kind != "space":
            borders.append((place, place + 1))
        open_kind = "" if kind == "space" else kind
    return borders


def _parts(tag: str) -> tuple[str, str]:
    """Return ``("B", "PER")`` of ``B-PER``; no position of a plain tag."""
    return (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") else ("", tag)


def _kind(character: str) -> str:
    if character.isspace():
        return "space"
    category = unicodedata.category(character)
    if category[0] == "M" or (category in ("Cf", "Sk") and ord(character) > 127):
        return "extends"
    return "word" if category[0] in "LN" or character == "_" else "alone"
