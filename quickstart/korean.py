"""Korean particles, chosen by the sound that a word ends in."""

from __future__ import annotations

_FIRST, _LAST = ord("가"), ord("힣")
_RIEUL = 8

PARTICLES = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "이나": ("이나", "나"),
    "이라": ("이라", "라"),
    "이랑": ("이랑", "랑"),
    "으로": ("으로", "로"),
    "이에요": ("이에요", "예요"),
    "이며": ("이며", "며"),
    "이면": ("이면", "면"),
}
"""Particle as written after a consonant -> itself, and its form after a vowel."""


def final_consonant(word: str) -> int:
    """Return the number of the final consonant of the last syllable: 0 for none, 8 for ㄹ, at most 27.

    Raises:
        ValueError: The last character is not a Hangul syllable, so that its sound is not known.
    """
    code = ord(word[-1])
    if not _FIRST <= code <= _LAST:
        raise ValueError(f"{word!r} does not end in a Hangul syllable")
    return (code - _FIRST) % 28


def with_particle(word: str, particle: str) -> str:
    """Return `word` with a particle of `PARTICLES` in the form that its last sound asks for."""
    final = final_consonant(word)
    after_consonant, after_vowel = PARTICLES[particle]
    vowel_like = final == 0 or (particle == "으로" and final == _RIEUL)
    return word + (after_vowel if vowel_like else after_consonant)


class Noun(str):
    """A word that takes its particle from a template: ``"{food:을} 팝니다"``; any other text after ``:`` is kept."""

    def __format__(self, particle: str) -> str:
        return with_particle(self, particle) if particle else str(self)
