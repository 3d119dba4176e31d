"""How well a tokenizer reads each script of the text: an English vocabulary takes Korean apart without an error."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from lorakit.types import ScriptCount

OTHER = "other"
"""Digits, punctuation, emoji and other symbols, and letters that serve as such (ª, µ, 𝐀)."""
_SCRIPTS = {
    **dict.fromkeys(("CJK", "IDEOGRAPHIC"), "Han"),
    **dict.fromkeys(("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"), "Kana"),
    **dict.fromkeys(("MODIFIER", "MATHEMATICAL", "SCRIPT", "DOUBLE-STRUCK", "BLACK-LETTER", "SUPERSCRIPT"), OTHER),
    **dict.fromkeys(("ANGSTROM", "FEMININE", "KELVIN", "MASCULINE", "MICRO", "OHM", "VERTICAL", "TURNED"), OTHER),
}
"""First word of a letter's Unicode name -> its script, where that word is not what the script is called."""
_LONGEST = 10_000
"""Characters of a text that are looked at."""
_UNREADABLE = 0.02
"""Share of unknown pieces above which a script counts as not read."""
_TAKEN_APART = 1.8
"""Pieces a letter above which a script that is not Latin counts as taken apart: jamo, or bytes."""
_RARE = 0.01
"""Share of all letters below which a script is counted, but has no line."""
_INCIDENTAL = 0.05
"""Share of all letters below which a script is no reason for a warning: laughter in jamo, a few Han."""
_ENGLISH = "The quick brown fox jumps over the lazy dog while people read what was written about it."


def readability(texts: Sequence[str], tokenizer: Any) -> list[ScriptCount]:
    """Count, for each script, what a tokenizer makes of it; the most frequent script first.

    A word is a run of one script between white space or other scripts. A piece belongs to the script of its first
    character that is no white space; a character without a piece of its own (deleted by the tokenizer) has none.

    Args:
        texts: Text as people wrote it; of each, the first 10,000 characters count.
        tokenizer: Of `transformers`, fast or not.
    """
    cut = [text[:_LONGEST] for text in texts if text.strip()]
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    scripts = [_scripts_of(text) for text in cut]
    for text, named in zip(cut, scripts, strict=True):
        seen = [None if letter.isspace() else name for letter, name in zip(text, named, strict=True)]
        characters.update(name for name in seen if name is not None)
        words.update(now for before, now in pairwise([None, *seen]) if now is not None and now != before)
    tokens: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for name, is_unknown in _pieces(cut, scripts, tokenizer):
        tokens[name] += 1
        unknown[name] += is_unknown
    return [
        ScriptCount(name, words[name], count, tokens[name], unknown[name]) for name, count in characters.most_common()
    ]


def spoken(counts: Sequence[ScriptCount], tokenizer: Any) -> list[str]:
    """Return what the user should know: a warning where a script is not read, and a line of numbers for each.

    What has no script gets a line where the tokenizer does not know it. Byte-level models take every script apart, so
    that many pieces a letter are a fault only where English words stay whole.
    """
    letters = sum(one.characters for one in counts if one.script != OTHER)
    common = [one for one in counts if one.script != OTHER and one.characters > _RARE * letters]
    (latin, *_) = (one for one in readability([_ENGLISH], tokenizer) if one.script == "Latin")
    needed = [one for one in common if one.characters > _INCIDENTAL * letters]
    warnings = [sentence for one in needed if (sentence := _warning(one, latin.tokens_per_character < 1))]
    lines = [
        f"{one.script}: {one.tokens_per_word:.2f} tokens a word, {one.tokens_per_character:.2f} a character, "
        f"{100 * one.unknown_share:.3g} % of them unknown."
        for one in common
    ]
    return [*warnings, *lines, *_symbols(counts)]


def _symbols(counts: Sequence[ScriptCount]) -> list[str]:
    """Return a line where what has no script is not read and is more than a rare sight."""
    total = sum(one.characters for one in counts)
    return [
        f"Emoji, symbols, digits and punctuation: {100 * one.unknown_share:.3g} % of them are unknown pieces, which "
        "this checkpoint cannot tell apart."
        for one in counts
        if one.script == OTHER and one.unknown_share > _UNREADABLE and one.characters > _RARE * total
    ]


def _warning(one: ScriptCount, reads_english: bool) -> str | None:
    apart = f"{one.tokens_per_character:.1f} pieces a letter"
    if one.unknown_share > _UNREADABLE:
        return (
            f"THIS CHECKPOINT CANNOT READ {one.script.upper()}: {100 * one.unknown_share:.3g} % of what it reads are "
            f"unknown pieces, whose words are lost ({apart}). Take a checkpoint that was trained on such text."
        )
    if one.script != "Latin" and one.tokens_per_character > _TAKEN_APART and reads_english:
        return (
            f"THIS CHECKPOINT HARDLY READS {one.script.upper()}: it takes text apart into {apart}, so texts are long "
            "and words mean little to it. Take a checkpoint that was trained on such text."
        )
    return None


@lru_cache(maxsize=20_000)
def script_of(character: str) -> str:
    """Return the script of a character, ``other`` where it has none; ``jamo`` are Korean letters outside syllables.

    A letter's script is the first word of its Unicode name: ``Kannada``, ``Lao``, ``Old`` of OLD ITALIC.
    """
    name = unicodedata.name(character, "").removeprefix("HALFWIDTH ").removeprefix("FULLWIDTH ")
    if name.startswith("HANGUL "):
        return "Hangul" if name.startswith("HANGUL SYLLABLE") else "jamo"
    if unicodedata.category(character)[0] != "L" or not name:
        return OTHER
    first = name.partition(" ")[0]
    return _SCRIPTS.get(first, first.capitalize())


def _scripts_of(text: str) -> list[str]:
    """Return each character's script; a mark has that of the letter it stands on, white space that of what follows."""
    named: list[str] = []
    for character in text:
        on_letter = named and unicodedata.category(character)[0] == "M"
        named.append(named[-1] if on_letter else script_of(character))
    for place in range(len(text) - 2, -1, -1):
        if text[place].isspace():
            named[place] = named[place + 1]
    return named


def _pieces(texts: Sequence[str], scripts: Sequence[list[str]], tokenizer: Any) -> Iterator[tuple[str, bool]]:
    """Yield the script of every piece, and whether it is the unknown token."""
    if not texts:
        return
    plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    if tokenizer.is_fast:
        encoded = tokenizer(list(texts), return_offsets_mapping=True, **plain)
        for named, ids, offsets in zip(scripts, encoded.input_ids, encoded.offset_mapping, strict=True):
            for token, (start, _) in zip(ids, offsets, strict=True):
                yield named[min(start, len(named) - 1)], token == tokenizer.unk_token_id
        return
    # Without places in the text, a word's pieces belong to its first letter.
    words = Counter(word for text in texts for word in text.split())
    for word, ids in zip(words, tokenizer(list(words), **plain).input_ids, strict=True):
        named = _scripts_of(word)
        script = next((name for name in named if name != OTHER), OTHER)
        for token in ids:
            yield from [(script, token == tokenizer.unk_token_id)] * words[word]
