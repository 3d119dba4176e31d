"""What an export is asked for, what an exporter does, and what it proves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lorakit.adapters.bundle import Target


@dataclass(frozen=True, slots=True)
class Order:
    """One export, as it was asked for."""

    name: str
    """The target, as typed."""
    target: Target
    output: Path
    dtype: str | None = None
    """Of the stored weights: a name of torch's, or ``q8_0``; None: as the base is stored."""
    base: str | None = None
    """Folder or Hub id of the base, where the target does not know it."""
    data: str | None = None
    """File of rows to compare on; None: the run's own rows where they are known, else shipped sentences."""
    shard_size: int | None = None
    """Bytes that a file of weights may have, where the format knows parts."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How far what was written, read by its own runtime, is from the target in float32."""

    runtime: str
    """Name and version of what read it."""
    dtype: str
    """Dtype most of the weights are stored in."""
    texts: int
    """Texts both were compared on."""
    origin: str
    """Where these texts come from."""
    largest_difference: float
    """Largest absolute difference between two numbers of `compared`."""
    largest_logit: float
    """Largest absolute number of the target, to compare with."""
    same_text: float | None
    """Share of texts continued with the same greedy text, in [0, 1]; None of a model that writes none."""
    loss_before: float
    """Mean loss of the target on the texts, in nats a token."""
    loss_after: float
    """The same of what was written."""
    notes: tuple[str, ...] = ()
    compared: str = "logits"
    """What was compared, in a word."""


class Exporter(Protocol):
    """One format: refuses first, writes next, proves last; made for one order."""

    folder: bool
    """Whether it writes a folder; else one file."""
    dtypes: tuple[str, ...]
    """What `Order.dtype` may be."""

    def refuse(self) -> None:
        """Raise LorakitError for what the format cannot hold, saying what to do; no weight is read yet."""

    def write(self, place: Path) -> None:
        """Write the target into an empty folder, or as the file `place`."""

    def verify(self, place: Path) -> Proof:
        """Read what was written in its own runtime and compare it; LorakitError where it says something else."""
