"""Whether rows are those that a target was trained on: how well it does on these says little of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lorakit.adapters.bundle import Target
from lorakit.data import splitting
from lorakit.errors import LorakitError
from lorakit.types import Format, Row
from lorakit.workflows import stored_recipe
from lorakit.workflows.encoding import fingerprint


def told(target: Target, called: str, rows: Sequence[Row], format: Format) -> list[str]:
    """Return a line if a target learned these rows, or the part of them that its recipe draws.

    Args:
        target: Whose manifest holds the fingerprint of its training rows.
        called: What messages call it.
        rows: All canonical rows of a source, in reading order.
        format: What they hold.
    """
    if target.manifest is None or target.manifest.data is None:
        return []
    if fingerprint(rows) == target.manifest.data:
        which = "these rows"
    else:
        part = _drawn(target.folder, rows, format)
        if fingerprint(part) != target.manifest.data:
            return []
        which = f"{len(part):,} of these {len(rows):,} rows"
    return [f"{called} learned {which} in training: the scores say what it remembers, not how it does on new ones"]


def _drawn(folder: Path, rows: Sequence[Row], format: Format) -> Sequence[Row]:
    """Return the rows that the training which wrote `folder` learned, if `rows` are all that it read; or none."""
    try:
        recipe = stored_recipe.of(folder)
        if recipe is None:
            return []
        data, seed = recipe.data, recipe.train.seed
        if isinstance(data.held_out, float):
            rows, _ = splitting.split(rows, format, data.held_out, seed)
    except LorakitError:
        # A recipe of another version, or too few rows to have been parted.
        return []
    return rows if data.rows is None else splitting.sample_to_learn(rows, data.rows, seed)
