"""The table of exchanged characters says to other readers of SentencePiece's tables what was put into it."""

from __future__ import annotations

import struct

import pytest
from tokenizers import normalizers

from lorakit.adapters.export.gguf_charsmap import compiled, in_pieces

IN_BYTES = {byte: f"<0x{byte:02X}>" for byte in range(256)}


def exchange(table: bytes, text: str) -> str:
    """What the reader of `tokenizers` makes of a text; where one text begins another, it takes the shorter one."""
    return normalizers.Precompiled(table).normalize_str(text)


def exchange_longest(table: bytes, text: str) -> str:
    """What SentencePiece makes of a text: at each place the longest match is exchanged, else a byte is kept."""
    (size,) = struct.unpack_from("<I", table)
    units, replacements = struct.unpack_from(f"<{size // 4}I", table, 4), table[4 + size :]
    left, made = text.encode(), b""
    while left:
        place, longest = units[0] >> 10, None
        for length, byte in enumerate(left, start=1):
            place ^= byte
            if units[place] & (1 << 31 | 255) != byte:
                break
            ends, place = units[place] >> 8 & 1, place ^ units[place] >> 10
            longest = (length, units[place] & ~(1 << 31)) if ends else longest
        if longest is not None:
            made += replacements[longest[1] : replacements.index(b"\0", longest[1])]
        made, left = (made + left[:1], left[1:]) if longest is None else (made, left[longest[0] :])
    return made.decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("▁", "_"), ("é", "e"), ("ab", "aab"), ("▁é가a", "_e가aa"), ("한", ""), ("z", "z"), ("é▁é", "e_e")],
)
def test_each_character_is_exchanged_for_its_replacement_and_others_stay(text, expected):
    table = {"▁": "_", "é": "e", "a": "aa", "한": "", "b": "b"}
    assert exchange(compiled({key.encode(): replacement for key, replacement in table.items()}), text) == expected


def test_every_syllable_of_a_large_vocabulary_is_exchanged_for_its_own():
    syllables = [chr(0xAC00 + number) for number in range(3000)]
    table = compiled({syllable.encode(): f"{number} " for number, syllable in enumerate(syllables)})
    assert exchange(table, "".join(syllables)) == "".join(f"{number} " for number in range(3000))


def test_characters_that_are_no_piece_are_read_as_the_names_of_their_bytes():
    table = compiled(in_pieces(["▁a", "a", "▁", "é"], IN_BYTES, {}))
    assert exchange_longest(table, "a é\t") == "a é<0x09>"
    assert in_pieces(["a"], IN_BYTES, {})["😀".encode()[:1]] == "<0xF0>"


def test_what_is_exchanged_for_a_character_that_is_no_piece_is_spelled_too():
    assert in_pieces(["a"], IN_BYTES, {"b": "é"})[b"b"] == "<0xC3><0xA9>"


def test_a_text_that_is_kept_stays_among_characters_that_do_not():
    table = compiled(in_pieces(["a"], IN_BYTES, {}, ["bcd"]))
    assert exchange_longest(table, "bcda") == "bcda"
    assert exchange_longest(table, "bca") == "<0x62><0x63>a"


def test_without_names_of_bytes_only_what_is_named_is_exchanged():
    assert in_pieces(["a"], {}, {"b": "é"}) == {b"b": "é"}
