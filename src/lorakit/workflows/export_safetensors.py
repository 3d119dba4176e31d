"""A merged transformers folder: what `lorakit merge` writes and proves, its weights in files of a bounded size."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lorakit.adapters import plain
from lorakit.adapters.bundle import open_target
from lorakit.adapters.export import shards
from lorakit.adapters.merging import check_foldable
from lorakit.checkpoints import weights
from lorakit.checkpoints.hashes import HASHES
from lorakit.errors import LorakitError
from lorakit.workflows.export_order import Order, Proof
from lorakit.workflows.merging import merge

if TYPE_CHECKING:
    from lorakit.workflows.merging import Dtype, MergeReport

SHARD_SIZE = 5_000_000_000
"""Bytes of tensors in a file, where nothing else is asked."""


class Safetensors:
    """Writes a folder that transformers' `from_pretrained`, and so vLLM, loads."""

    folder = True
    dtypes = ("float32", "bfloat16", "float16")

    def __init__(self, order: Order) -> None:
        self.order = order

    def refuse(self) -> None:
        """Raise CheckpointError for a model that is whole already."""
        check_foldable(self.order.target)

    def write(self, place: Path) -> None:
        """Merge, which proves the folder, then share its weights out over files."""
        order, merged = self.order, place / "merged"
        self.report: MergeReport = merge(
            order.name, merged, cast("Dtype | None", order.dtype), base=order.base, data=order.data
        )
        self.fingerprint = weights.fingerprint(merged)
        shards.split(merged, place, order.shard_size or SHARD_SIZE)
        for file in merged.iterdir():
            if file.name not in (HASHES, weights.INDEX) and file.suffix != ".safetensors":
                os.replace(file, place / file.name)
        shutil.rmtree(merged)

    def verify(self, place: Path) -> Proof:
        """Load the folder through plain transformers; its tensors are those that were compared."""
        unread = plain.load(open_target(str(place)))[1]
        if unread or weights.fingerprint(place) != self.fingerprint:
            raise LorakitError(
                f"transformers does not read what was written{': ' + unread[0] if unread else ''}. This is a fault of "
                f"lorakit or of a library under it; nothing was written."
            )
        report = self.report
        return Proof(
            runtime=f"transformers {version('transformers')}",
            dtype=report.dtype,
            texts=report.probes,
            origin=report.origin,
            largest_difference=report.largest_difference,
            largest_logit=report.largest_logit,
            same_text=report.same_text,
            loss_before=report.loss_before,
            loss_after=report.loss_after,
            notes=tuple(note for note in report.notes if note not in self.order.target.notes),
        )
