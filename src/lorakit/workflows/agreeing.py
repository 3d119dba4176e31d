"""Whether adapters can be taken together: low-rank pairs over one base, with one output and one vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lorakit.adapters.bundle import Target
from lorakit.adapters.edits import edits_of
from lorakit.adapters.lora_config import LoraFile
from lorakit.adapters.lora_file import adapted_weight, is_rows
from lorakit.adapters.parts import Parts
from lorakit.errors import LorakitError
from lorakit.types import Head
from lorakit.workflows.rewriting import open_lora


@dataclass(frozen=True, slots=True)
class Source:
    """An adapter taken apart, to be set beside others."""

    name: str
    """As typed."""
    target: Target
    adapter: LoraFile
    parts: Parts


def open_sources(names: Sequence[str], base: str | None, verb: str) -> list[Source]:
    """Open LoRA adapters of one base.

    Args:
        names: Folders, `.lora` files or Hub ids.
        base: Folder or Hub id of the base, for those that do not know it.
        verb: What messages say cannot be done to others.

    Raises:
        LorakitError: One is no LoRA adapter, holds DoRA, does not fit its base, or has another base than the first.
    """
    found = []
    for name in names:
        source = Source(name, *open_lora(name, base, verb))
        if source.adapter.use_dora:
            raise LorakitError(
                f"{name} was trained with DoRA: each row of a weight gets a length of its own after the pair is added, "
                f"so that its change is neither a pair nor in proportion to one, and cannot be {verb}. Use an adapter "
                f"trained with method.dora: false."
            )
        # Whether it fits is asked before, not after, it is added to others.
        edits_of(source.target, source.target.base.skeleton(source.target.head))
        found.append(source)
    first = found[0]
    for other in found[1:]:
        if other.target.base.fingerprint != first.target.base.fingerprint:
            raise LorakitError(
                f"{first.name} changes {_base(first)}, and {other.name} {_base(other)}: a change of one model says "
                f"nothing about another. Take adapters of one base."
            )
    return found


def _base(source: Source) -> str:
    base = source.target.base
    return f"{base.called} ({base.family.model_type}, weights {base.fingerprint[:19]}…)"


def check_heads(sources: Sequence[Source]) -> None:
    """Raise LorakitError where adapters give scores of other things, or of other labels, than the first."""
    first = sources[0]
    for other in sources[1:]:
        if other.target.head != first.target.head:
            raise LorakitError(
                f"{first.name} was trained for {_output(first.target.head)}, and {other.name} for "
                f"{_output(other.target.head)}: one adapter cannot give both. Take adapters that learned the same, "
                f"with the same labels in the same order."
            )


def _output(head: Head) -> str:
    labels = f" with the labels {', '.join(head.labels[:8])}" if head.labels else ""
    return f"{head.task}{f' ({head.problem})' if head.problem else ''}{labels}"


def check_vocabularies(sources: Sequence[Source]) -> None:
    """Raise LorakitError where one adapter added tokens that the first has not."""
    first = sources[0]
    own = _added(first)
    for other in sources[1:]:
        if _added(other) not in ((), own):
            raise LorakitError(
                f"{other.name} added {_listed(_added(other))} to the vocabulary, and {first.name} {_listed(own)}: a "
                f"token id would mean two things. Name the one with new tokens first; two with different new tokens "
                f"cannot be taken together."
            )


def _added(source: Source) -> tuple[str, ...]:
    return source.target.manifest.added_tokens if source.target.manifest is not None else ()


def _listed(tokens: tuple[str, ...]) -> str:
    more = f" and {len(tokens) - 4:,} more" if len(tokens) > 4 else ""
    return ", ".join(map(repr, tokens[:4])) + more if tokens else "none"


def check_kinds(sources: Sequence[Source]) -> None:
    """Raise LorakitError where one adapter holds a pair for a weight that another holds otherwise."""
    seen: dict[str, tuple[str, Source]] = {}
    for source in sources:
        kinds = {f"{module}.weight": "a low-rank pair" for module in source.parts.pairs}
        for name in source.parts.rest:
            kinds[adapted_weight(name)] = "single rows" if is_rows(name) else "the whole weight"
        for weight, kind in kinds.items():
            known, where = seen.setdefault(weight, (kind, source))
            if known != kind:
                raise LorakitError(
                    f"{where.name} holds {known} for {weight!r}, and {source.name} {kind}: no adapter holds both. "
                    f"Train them alike (method.targets, model.add_tokens)."
                )
