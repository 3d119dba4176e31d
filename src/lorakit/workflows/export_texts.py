"""Texts as a target reads them, for what another runtime must cut alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lorakit.adapters.bundle import Target
from lorakit.data.encoding import TextEncoder
from lorakit.data.framing import FramedEncoder
from lorakit.data.source_text import SourceEncoder
from lorakit.errors import LorakitError
from lorakit.workflows.probing import SENTENCES
from lorakit.workflows.tasks import settings_of

TEXTS = (*SENTENCES, "It's 1,024 + 7 = 1031!  Two\n\nlines,\tand a tab: (naïve) 'quotes' — ça va? 😀")
"""Texts that both tokenizers must cut alike."""


def as_read(target: Target, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts with what stands around them, but for the text behind a prompt or before a source."""
    tokenizer = target.tokenizer
    if target.base.family.kind == "decoder":
        return TextEncoder(tokenizer, replace(target.style, separator="")).prompts(texts)
    if target.base.family.kind == "encoder":
        return [framed.ids.tolist() for framed in FramedEncoder(tokenizer).singles(texts)]
    return [framed.ids.tolist() for framed in SourceEncoder(tokenizer).sources(texts)]


def frame(target: Target) -> tuple[list[int], list[int]]:
    """Return the tokens before a text and those behind it, at most one each.

    Raises:
        LorakitError: There are more.
    """
    letter = target.tokenizer("a", add_special_tokens=False).input_ids
    ids = as_read(target, ["a"])[0]
    start = next(start for start in range(len(ids)) if ids[start : start + len(letter)] == letter)
    before, behind = ids[:start], ids[start + len(letter) :]
    if len(before) > 1 or len(behind) > 1:
        raise LorakitError(
            f"llama.cpp puts one token before a text and one behind it, and this tokenizer {len(before)} and "
            f"{len(behind)}."
        )
    return before, behind


def untold(target: Target, format_name: str) -> Iterator[str]:
    """Yield a sentence for each text of training that a format of models alone has no place for."""
    if target.style.separator:
        yield f"{format_name} has no place for the text behind a prompt: write {target.style.separator!r} behind each."
    if prefix := getattr(settings_of(target), "prefix", ""):
        yield f"{format_name} has no place for the text before a source: write {prefix!r} before each."
    if target.stop_strings:
        yield f"{format_name} has no place for texts that end an answer: {', '.join(map(repr, target.stop_strings))}."
