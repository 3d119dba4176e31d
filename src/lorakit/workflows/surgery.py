"""`lorakit adapter resize`: the same adapter with fewer ranks; and how ranks are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters import surgery
from lorakit.errors import LorakitError
from lorakit.workflows.rewriting import Cost, check_output, open_lora, rewrite

if TYPE_CHECKING:
    from torch import Tensor

    from lorakit.adapters.surgery import Choice


@dataclass(frozen=True, slots=True)
class Cut:
    """What a layer keeps of its change."""

    layer: str
    values: tuple[float, ...]
    """Singular values of the change, largest first."""
    rank: int
    energy: float
    """Share of the squared norm of the change that `rank` values hold, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Resized:
    """An adapter of other ranks."""

    cost: Cost
    parameters_before: int
    size_before: int
    """Bytes of the weight file it was made from."""
    cuts: tuple[Cut, ...]


def choice(rank: int | None, energy: float | None) -> tuple[Choice, str]:
    """Return how ranks are chosen, and the words for it.

    Raises:
        LorakitError: Both or neither is given, or one is out of range.
    """
    if (rank is None) == (energy is None):
        raise LorakitError("give --rank N for one rank, or --energy X for the rank each layer needs: one of the two.")
    if rank is not None:
        if rank < 1:
            raise LorakitError(f"--rank is {rank}; must be 1 or more.")
        return surgery.at_most(rank), f"rank {rank}"
    assert energy is not None
    if not 0 < energy <= 1:
        raise LorakitError(f"--energy is {energy:g}; must be above 0 and at most 1, such as 0.95.")
    return surgery.share(energy), f"energy {energy:g}"


def cut_of(layer: str, values_K: Tensor, rank: int) -> Cut:
    """Return what a layer keeps with so many of its singular values."""
    return Cut(layer, tuple(values_K.tolist()), rank, surgery.kept(values_K, rank))


def resize(
    target: str,
    output: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    base: str | None = None,
    data: str | None = None,
    force: bool = False,
    on_layer: Callable[[int, int], None] | None = None,
) -> Resized:
    """Write an adapter with the nearest pairs of lower rank; what is stored beside the pairs stays as it is.

    Args:
        target: LoRA adapter or run: folder or Hub id.
        output: New folder.
        rank: Of every layer; a layer of lower rank keeps its own.
        energy: In (0, 1]: each layer gets the lowest rank that holds this share of the squared norm of its change.
        base: Folder or Hub id of the base, where the adapter does not know it.
        data: Rows to measure the loss on, before and after.
        force: Replace `output` where lorakit wrote it.
        on_layer: Told how many layers of how many are done.

    Raises:
        LorakitError: The target is no LoRA adapter, or the folder is taken.
    """
    choose, words = choice(rank, energy)
    output = Path(output).expanduser()
    opened, adapter, parts = open_lora(target, base, "resized")
    check_output(output, [opened], force)
    pairs, cuts = {}, []
    for number, (layer, pair) in enumerate(sorted(parts.pairs.items()), start=1):
        pairs[layer], values_K = surgery.truncated(pair, choose)
        cuts.append(cut_of(layer, values_K, pairs[layer].rank))
        if on_layer is not None:
            on_layer(number, len(parts.pairs))
    cost = rewrite(
        {target: opened}, adapter, replace(parts, pairs=pairs), f"resize to {words}", output, data=data, force=force
    )
    before = sum(tensor.numel() for tensor in parts.tensors.values())
    return Resized(cost, before, _size(opened.folder), tuple(cuts))


def _size(folder: Path) -> int:
    from lorakit.adapters.lora_file import weight_file

    return weight_file(folder).stat().st_size
