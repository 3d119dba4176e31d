"""What adapters store whole beside their pairs, added with weights: heads, norms, embeddings, rows of new tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lorakit.adapters.lora_file import adapted_weight, is_rows
from lorakit.adapters.merging import base_places
from lorakit.checkpoints import ties
from lorakit.errors import LorakitError
from lorakit.workflows.agreeing import Source

if TYPE_CHECKING:
    from torch import Tensor

    from lorakit.checkpoints.weights import Place

_Held = list[tuple[Source, float, "Tensor"]]
"""Who holds a part, with what weight, and what it is."""


def whole_parts(sources: Sequence[Source], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted sum of what is stored whole, by name in the file.

    As changes they add up like pairs: ``W0 + sum(w (W - W0)) = sum(w W) + (1 - sum(w)) W0``, with W0 of the base. What
    the base lacks (a new head) has no W0, and is a mean where its weights sum to 1, or stays where all hold the same.

    Args:
        sources: Of one base, with one output.
        weights: One each.

    Raises:
        LorakitError: There is a part that the base lacks, which differs, and whose weights do not sum to 1.
    """
    held: dict[str, _Held] = {}
    for source, weight in zip(sources, weights, strict=True):
        for name, tensor in source.parts.rest.items():
            held.setdefault(name, []).append((source, weight, tensor))
    base = _base_of(sources, held) if held else {}
    return {name: _part(name, holders, base) for name, holders in held.items()}


def _base_of(sources: Sequence[Source], held: Mapping[str, _Held]) -> dict[str, Place]:
    """Return where the base stores its weights, also under their further names."""
    target = sources[0].target
    skeleton = target.base.skeleton(target.head)
    found = base_places(target, skeleton, {adapted_weight(name) for name in held})
    copies = {copy: found[original] for copy, original in ties.copies(skeleton).items() if original in found}
    return {**copies, **found}


def _part(name: str, holders: _Held, base: Mapping[str, Place]) -> Tensor:
    first, _, tensor = holders[0]
    for source, _, other in holders[1:]:
        if other.shape != tensor.shape or _rows(name, source) != _rows(name, first):
            raise LorakitError(
                f"{first.name} and {source.name} hold {adapted_weight(name)!r} with other shapes or of other tokens: "
                f"they cannot be added. Train them with the same labels and the same model.add_tokens."
            )
    left = 1 - sum(weight for _, weight, _ in holders)
    mixed = sum(weight * other.double() for _, weight, other in holders)
    assert not isinstance(mixed, int)
    if abs(left) < 1e-9:
        return mixed.float()
    before = _before(name, first, base)
    if before is not None and before.shape == tensor.shape:
        return (mixed + left * before.double()).float()
    if all(other.equal(tensor) for _, _, other in holders):
        return tensor
    raise LorakitError(
        f"{' and '.join(source.name for source, _, _ in holders)} hold different weights for {adapted_weight(name)!r}, "
        f"which the base lacks: nothing says what they were before, and only a mean of them is such a layer again. "
        f"Give weights that sum to 1, such as A:0.5 B:0.5; these sum to {1 - left:g}."
    )


def _rows(name: str, source: Source) -> list[int]:
    """Return which rows of a layer a part is; none where it is the whole layer."""
    return source.adapter.rows(adapted_weight(name).removesuffix(".weight")) if is_rows(name) else []


def _before(name: str, source: Source, base: Mapping[str, Place]) -> Tensor | None:
    """Return what the base holds in the place of a part; None where it lacks it."""
    import torch

    place = base.get(adapted_weight(name))
    if place is None or not is_rows(name):
        return None if place is None else place.read()
    rows = _rows(name, source)
    if max(rows) >= place.info.shape[0] or set(rows) & set(source.target.base.new_rows):
        return None
    return torch.cat([place.read(slice(row, row + 1)) for row in rows])
