"""Which prompts are answered side by side."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.generation.settings import DecodingSettings

TOKENS_AT_ONCE = 8192
"""Prompt and answer tokens of all rows of one batch, at most; it bounds the memory and changes no result."""

NEIGHBOURS = 128
"""Prompts in a row that are sorted by length: more waste less padding, fewer show their answers sooner."""


def by_length(lengths: Sequence[int], settings: DecodingSettings, budget: int = TOKENS_AT_ONCE) -> list[list[int]]:
    """Deal prompts of similar length into batches of at most `budget` tokens, answers at full length included.

    Prompts far apart in the file share no batch, so that answers come in about its order. Among neighbours the longest
    come first.

    Args:
        lengths: Tokens of each prompt.
        settings: Say how many answers a prompt gets, and how long.
        budget: Tokens of a batch; a single prompt may exceed it.
    """
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: (number // NEIGHBOURS, -lengths[number])):
        near = bool(batches) and batches[-1][0] // NEIGHBOURS == number // NEIGHBOURS
        widest = lengths[batches[-1][0]] if near else 0
        rows = (len(batches[-1]) + 1) * settings.num_samples if near else 0
        if near and rows * (widest + settings.max_new_tokens) <= budget:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches
