"""What a GGUF file has no place for, and whoever uses it must know."""

from __future__ import annotations

from collections.abc import Iterator

from lorakit.adapters.bundle import Target
from lorakit.adapters.export.gguf_vocabulary import Vocabulary
from lorakit.workflows import export_texts


def untold(target: Target, vocabulary: Vocabulary, ends: int, positions: int) -> Iterator[str]:
    """Yield a sentence for each.

    Args:
        target: What was written.
        vocabulary: What the file says of its tokenizer.
        ends: How many tokens that end an answer are in the file.
        positions: Longest text, in tokens, that the file claims to read.
    """
    yield from export_texts.untold(target, "GGUF")
    if len(target.eos_ids) > ends:
        yield f"GGUF has places for three tokens that end an answer, and this model {len(target.eos_ids)}."
    if vocabulary.decomposes:
        yield (
            "llama.cpp does not take all letters apart as this tokenizer does first (Korean, letters with marks): give "
            "it texts in Unicode's form NFD."
        )
    if vocabulary.model == "bert" and not vocabulary.lowers:
        yield (
            "A llama.cpp that does not read tokenizer.ggml.normalizer.lowercase takes capital letters for small ones: "
            "use one as new as the one here."
        )
    if vocabulary.spells_bytes:
        yield (
            "llama.cpp writes the bytes of a character that is no token by their names, such as <0xF0>: join them; and "
            "it reads such a name as that byte."
        )
    if target.head.task in ("masked_lm", "masked_lm_nsp"):
        yield "GGUF has no place for the head that fills in words: the file gives vectors, and their mean."
    yield from untold_of_windows(target, positions)


def untold_of_windows(target: Target, positions: int) -> Iterator[str]:
    """Yield a sentence where the file claims to read shorter texts than the target."""
    bound = target.base.max_positions
    if bound is not None and positions < bound:
        yield (
            f"llama.cpp lets this type of model attend to all it has read, and it was trained on windows of "
            f"{positions} tokens: the file says that its texts are no longer."
        )
