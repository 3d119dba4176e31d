"""What characters are exchanged for before text is cut, in the table that SentencePiece compiles into its models.

Length of a trie in bytes, the trie, and the replacements, each ended by a zero. The trie is a double array of 32-bit
units (Aoe 1989; layout of https://github.com/s-yata/darts-clone): a child stands at the exclusive or of its parent's
place, the parent's offset (bits 10 and up), and the byte that leads to it, which is kept in bits 0 to 7; bit 8 says
that the bytes so far are exchanged, and child 0 then holds where in the replacements to look, marked by bit 31.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from itertools import count
from typing import Any, cast

_Node = dict[int, Any]
"""Byte -> the node it leads to; 0 -> where the replacement of the bytes so far begins."""

_WIDE = 8
_ENDS, _VALUE = 1 << 8, 1 << 31


def in_pieces(
    pieces: Collection[str], in_bytes: Mapping[int, str], exchanged: Mapping[str, str], kept: Iterable[str] = ()
) -> dict[bytes, str]:
    """Return what to exchange so that a tokenizer without bytes reads characters that are no piece as their bytes.

    The longest match counts: characters that are pieces, exchanged for themselves, stay.

    Args:
        pieces: Of the vocabulary; a space is spelled ``▁``.
        in_bytes: Byte -> the name of its token; empty where nothing is read as bytes.
        exchanged: What else is exchanged.
        kept: Texts that stay whatever is in them.
    """
    known = {piece for piece in pieces if len(piece) == 1} | {" "}
    byte_by_byte = {bytes([byte]): name for byte, name in in_bytes.items() if byte}
    whole = {text: text for text in (*(known if in_bytes else ()), *kept)}
    told = whole | {text: _spelled(replacement, known, in_bytes) for text, replacement in exchanged.items()}
    return {**byte_by_byte, **{text.encode(): replacement for text, replacement in told.items()}}


def _spelled(text: str, known: Collection[str], in_bytes: Mapping[int, str]) -> str:
    """Return a text with characters that are not known in bytes."""
    if not in_bytes:
        return text
    return "".join(each if each in known else "".join(in_bytes[byte] for byte in each.encode()) for each in text)


def compiled(exchanged: Mapping[bytes, str]) -> bytes:
    """Return the table of what is exchanged: text in UTF-8, or bytes of it -> the replacement."""
    replacements = bytearray()
    root: _Node = {}
    for text, replacement in exchanged.items():
        node = root
        for byte in text:
            node = cast(_Node, node.setdefault(byte, {}))
        node[0] = len(replacements)
        replacements += replacement.encode() + b"\0"
    units = _laid_out(root)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(replacements)


def _laid_out(root: _Node) -> list[int]:
    """Return the units of a trie: each node's children where all of their places are free."""
    units = {0: 0}
    blocks: set[int] = set()
    nodes = deque([(0, root)])
    first = {False: 1, True: 1}
    while nodes:
        place, children = nodes.popleft()
        # Places before the last one are taken, or left: a node with many children rarely fits among those with few.
        wide = len(children) > _WIDE
        starts = (start for start in count(first[wide]) if start not in blocks)
        # No two nodes share a start: the byte alone tells whose child it is.
        start = next(start for start in starts if not any(start ^ byte in units for byte in children))
        blocks.add(start)
        first[wide] = start + 1
        units[place] |= (place ^ start) << 10 | (_ENDS if 0 in children else 0)
        for byte, child in children.items():
            units[start ^ byte] = byte if isinstance(child, dict) else child | _VALUE
            if isinstance(child, dict):
                nodes.append((start ^ byte, child))
    # Readers look at any byte from a start on.
    return [units.get(place, 0) for place in range((max(*units, *blocks) | 255) + 1)]
