"""`lorakit adapter combine`, `subtract` and `scale`: one adapter from the weighted changes of several, or of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters import surgery
from lorakit.adapters.bundle import adapter_fingerprint
from lorakit.adapters.combining import BY_FACTOR, HOWS, RANKED, SPARSE, How, combined
from lorakit.adapters.lora_config import LoraFile
from lorakit.adapters.parts import Parts, targeting
from lorakit.checkpoints import heads
from lorakit.errors import LorakitError, nearest
from lorakit.workflows.agreeing import Source, check_heads, check_kinds, check_vocabularies, open_sources
from lorakit.workflows.rewriting import Cost, check_output, rewrite
from lorakit.workflows.surgery import choice
from lorakit.workflows.whole_parts import whole_parts

if TYPE_CHECKING:
    from lorakit.adapters.surgery import Choice, Pair


_LARGEST = 1e19
"""The largest weight: squares of larger numbers are beyond float32, and of numbers below its inverse they are 0."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What stands in an adapter: one that was given, or the result."""

    name: str
    weight: float
    layers: int
    ranks: tuple[int, int]
    """Lowest and highest."""


@dataclass(frozen=True, slots=True)
class Combined:
    """An adapter made from others."""

    cost: Cost
    taken: tuple[Taken, ...]
    result: Taken


@dataclass(frozen=True, slots=True)
class _Way:
    """How changes are put together."""

    how: How = "cat"
    density: float = 1.0
    seed: int = 0
    choose: Choice | None = None
    """None: the highest rank of all, where a rank is to be chosen."""
    settings: tuple[str, ...] = ()
    """In words, for the manifest."""


def combine(
    given: Sequence[tuple[str, float]],
    output: str | Path,
    *,
    how: str = "cat",
    rank: int | None = None,
    energy: float | None = None,
    density: float | None = None,
    seed: int = 0,
    base: str | None = None,
    data: str | None = None,
    force: bool = False,
) -> Combined:
    """Write one adapter from several, each with a weight.

    Args:
        given: LoRA adapters or runs with their weights, two or more; prompts are framed as in the first.
        output: New folder.
        how: One of `combining.HOWS`; ``cat`` is the exact sum.
        rank: Of `combining.RANKED` ways; the highest of the given ones where `energy` is not given either.
        energy: In (0, 1], in place of a rank: what share of a layer's squared change is kept.
        density: In (0, 1]; of `combining.SPARSE` ways the share of numbers that are kept.
        seed: Draws what ``dare`` drops.
        base: Folder or Hub id of the base, where an adapter does not know it.
        data: Rows to measure the loss on, of each and of the result.
        force: Replace `output` where lorakit wrote it.

    Raises:
        LorakitError: They cannot be taken together, what is asked contradicts itself, or the folder is taken.
    """
    if len(given) < 2:
        raise LorakitError("give two adapters or more; one alone: lorakit adapter scale TARGET FACTOR -o DIR")
    way = _way(how, rank, energy, density, seed)
    done = " ".join(["combine by", how, *([f"({', '.join(way.settings)})"] if way.settings else [])])
    return _write(given, output, way, ("combined", done), base, data, force)


def subtract(
    target: str,
    other: str,
    output: str | Path,
    *,
    base: str | None = None,
    data: str | None = None,
    force: bool = False,
) -> Combined:
    """Write the change of one adapter less that of another, exactly; otherwise like `combine`."""
    given = [(target, 1.0), (other, -1.0)]
    return _write(given, output, _Way(), ("subtracted", "subtract"), base, data, force)


def scale(
    target: str,
    factor: float,
    output: str | Path,
    *,
    base: str | None = None,
    data: str | None = None,
    force: bool = False,
) -> Combined:
    """Write an adapter whose change is multiplied by a factor; otherwise like `combine`."""
    given = [(target, factor)]
    return _write(given, output, _Way(), ("scaled", "scale"), base, data, force)


def _way(how: str, rank: int | None, energy: float | None, density: float | None, seed: int) -> _Way:
    """Return how to combine; raises LorakitError for options that do not belong together."""
    known: How | None = next((one for one in HOWS if one == how), None)
    if known is None:
        raise LorakitError(f"--how is {how!r}; must be one of {', '.join(HOWS)}. {nearest(how, HOWS)}".rstrip())
    ranked = rank is not None or energy is not None
    if ranked and known not in RANKED:
        raise LorakitError(f"--rank and --energy are of --how {' and '.join(RANKED)}; {how} cuts no rank.")
    if density is None and known in SPARSE:
        raise LorakitError(f"--how {how} needs --density X, the share of numbers that are kept, such as 0.5.")
    if density is not None and known not in SPARSE:
        raise LorakitError(f"--density is of --how {', '.join(SPARSE)}; {how} keeps every number.")
    if density is not None and not 0 < density <= 1:
        raise LorakitError(f"--density is {density:g}; must be above 0 and at most 1, such as 0.5.")
    choose, cut = choice(rank, energy) if ranked else (None, "highest rank" if known in RANKED else "")
    thinned = f"density {density:g}" if density is not None else ""
    drawn = f"seed {seed}" if known == "dare" else ""
    settings = tuple(words for words in (cut, thinned, drawn) if words)
    return _Way(known, 1.0 if density is None else density, seed, choose, settings)


def _write(
    given: Sequence[tuple[str, float]],
    output: str | Path,
    way: _Way,
    words: tuple[str, str],
    base: str | None,
    data: str | None,
    force: bool,
) -> Combined:
    """Do it; `words` are what messages call it, and what the manifest does."""
    verb, done = words
    output = Path(output).expanduser()
    names, weights = [name for name, _ in given], [weight for _, weight in given]
    _check_weights(given, way.how)
    sources = open_sources(names, base, verb)
    check_output(output, [source.target for source in sources], force)
    check_heads(sources)
    check_vocabularies(sources)
    check_kinds(sources)
    if way.how in BY_FACTOR:
        _check_ranks(sources, way.how)
    parts = Parts(_pairs(sources, weights, way), whole_parts(sources, weights))
    prints = [(adapter_fingerprint(source.target) or "")[:19] for source in sources]
    shares = ", ".join(f"{weight:.12g} of {print}" for weight, print in zip(weights, prints, strict=True))
    by_name = {source.name: source.target for source in sources}
    adapter = _config(sources, parts)
    cost = rewrite(by_name, adapter, parts, f"{done}: {shares}", output, data=data, force=force)
    cost = replace(cost, notes=(*cost.notes, *_framing(sources)))
    taken = [_taken(source.name, weight, source.parts) for source, weight in zip(sources, weights, strict=True)]
    return Combined(cost, tuple(taken), _taken(str(output), 1.0, parts))


def _check_weights(given: Sequence[tuple[str, float]], how: How) -> None:
    for name, weight in given:
        if not math.isfinite(weight) or weight == 0:
            raise LorakitError(f"the weight of {name} is {weight:g}; must be a number other than 0, such as 0.5.")
        if not 1 / _LARGEST <= abs(weight) <= _LARGEST:
            raise LorakitError(
                f"the weight of {name} is {weight:g}, with which numbers leave float32: models square what they "
                f"compute. Give one from {1 / _LARGEST:g} to {_LARGEST:g} in size, such as 0.5."
            )
        if weight < 0 and how in ("ties", "ties_svd"):
            raise LorakitError(
                f"the weight of {name} is {weight:g}, and --how {how} lets adapters vote on the sign of each number "
                f"before weights are looked at: a negative one would have voted for what it takes away. Give weights "
                f"above 0, or take --how cat or svd."
            )


def _check_ranks(sources: Sequence[Source], how: How) -> None:
    """Raise LorakitError where factors of a layer are of different ranks, and cannot be added number by number."""
    seen: dict[str, tuple[int, Source]] = {}
    for source in sources:
        for layer, pair in source.parts.pairs.items():
            rank, first = seen.setdefault(layer, (pair.rank, source))
            if rank != pair.rank:
                larger = source if pair.rank > rank else first
                raise LorakitError(
                    f"--how {how} adds A to A and B to B, which must be of one rank: {layer} has rank {rank} in "
                    f"{first.name} and {pair.rank} in {source.name}. Take --how cat or svd, or cut the larger one "
                    f"first: lorakit adapter resize {larger.name} --rank {min(rank, pair.rank)} -o DIR"
                )


def _pairs(sources: Sequence[Source], weights: Sequence[float], way: _Way) -> dict[str, Pair]:
    """Return the pair of every layer that one of them changes, random numbers drawn in the order of their names."""
    import torch

    layers = sorted({layer for source in sources for layer in source.parts.pairs})
    highest = max(pair.rank for source in sources for pair in source.parts.pairs.values())
    choose = way.choose or surgery.at_most(highest)
    found = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(way.seed)
        for layer in layers:
            held = zip(sources, weights, strict=True)
            changes = [(source.parts.pairs[layer], weight) for source, weight in held if layer in source.parts.pairs]
            found[layer] = combined(changes, way.how, way.density, choose)
            if not bool((found[layer].up_OR.float() * found[layer].scale).isfinite().all()):
                raise LorakitError(
                    f"{_shares(sources, weights)} is more than float32 holds ({layer}): give smaller weights."
                )
    return found


def _shares(sources: Sequence[Source], weights: Sequence[float]) -> str:
    return " and ".join(f"{weight:g} of {source.name}" for source, weight in zip(sources, weights, strict=True))


def _config(sources: Sequence[Source], parts: Parts) -> LoraFile:
    """Return the first one's config for the layers and parts of all."""
    first = sources[0].adapter
    rows = next((source.adapter.trainable_token_indices for source in sources if _has_rows(source)), None)
    whole = dict.fromkeys(name for source in sources for name in source.adapter.modules_to_save or ())
    adapter = first.model_copy(
        update={
            "modules_to_save": list(whole) or None,
            "trainable_token_indices": rows,
            # Of layers stored as (I, O); PEFT looks at each layer anyway.
            "fan_in_fan_out": any(source.adapter.fan_in_fan_out for source in sources),
        }
    )
    return adapter if parts.pairs.keys() == sources[0].parts.pairs.keys() else targeting(adapter, list(parts.pairs))


def _has_rows(source: Source) -> bool:
    return source.adapter.trainable_token_indices is not None


def _taken(name: str, weight: float, parts: Parts) -> Taken:
    ranks = [pair.rank for pair in parts.pairs.values()]
    return Taken(name, weight, len(ranks), (min(ranks), max(ranks)))


def _framing(sources: Sequence[Source]) -> list[str]:
    """Return a note for each that learned to be asked, or to end, otherwise than the first."""
    first, *others = (source.target for source in sources)
    notes = []
    for source, other in zip(sources[1:], others, strict=True):
        same = (other.style, other.eos_ids, other.stop_strings) == (first.style, first.eos_ids, first.stop_strings)
        if not same and heads.writes(first.head):
            notes.append(
                f"{source.name} learned other prompts or ends than {sources[0].name}: those of {sources[0].name} hold"
            )
    return notes
