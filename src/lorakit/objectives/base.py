"""What objectives share: rows laid side by side, and scores over the vocabulary at labelled positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from lorakit.types import Batch, Example

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100
"""Label of a position that is not learned."""


class Shared:
    """The parts of an objective that are the same in most."""

    steady = True
    apart = True

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the raw scores of a batch by name; the first axis numbers them."""
        raise NotImplementedError

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return each term's loss, summed over its predictions."""
        raise NotImplementedError

    def loss_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return each term's loss in nats, summed over its predictions; shape () each, float32."""
        return self.losses(self.outputs(model, batch), batch)

    def tallies(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, tuple[float, float]]:
        """Return what an evaluation counts besides; nothing here."""
        return {}

    def learned(self, example: Example) -> int:
        """Return how many labels an example has."""
        return int((example.labels != IGNORED).sum())


def laid(rows: Sequence[np.ndarray], packed: bool, padding: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lay rows end to end in one (`packed`), or one below the other, padded at the right.

    Args:
        rows: Arrays of shape (T,) each.
        packed: Whether they become one row.
        padding: What fills the places of shorter ones.

    Returns:
        The rows, shape (1, T) or (B, T), int64, and the flat index, over B * T, at which each begins, shape (B,).
    """
    lengths = [len(row) for row in rows]
    width = sum(lengths) if packed else max(lengths)
    laid_BT = np.full((1 if packed else len(rows), width), padding, dtype=np.int64)
    starts_B = np.cumsum((0, *lengths[:-1])) if packed else np.arange(len(rows)) * width
    for start, row in zip(starts_B, rows, strict=True):
        laid_BT.reshape(-1)[start : start + len(row)] = row
    return laid_BT, starts_B


def read_by_model(
    rows: Sequence[np.ndarray], packed: bool, padding: int = 0, first_position: int = 0
) -> tuple[dict[str, Tensor], np.ndarray]:
    """Return ``input_ids`` with ``position_ids`` (packed) or ``attention_mask`` (padded), and where each row begins.

    Args:
        rows: Token ids, shape (T,) each.
        packed: Whether they lie end to end.
        padding: Id that fills the places of shorter rows.
        first_position: Number of the first position of a text (`families.Family.first_position`).
    """
    import torch

    from lorakit.fast.varlen import positions

    ids_BT, starts_B = laid(rows, packed, padding)
    lengths = tuple(len(row) for row in rows)
    inputs = {"input_ids": torch.from_numpy(ids_BT)}
    if packed:
        inputs["position_ids"] = positions(lengths)[None] + first_position
    else:
        inputs["attention_mask"] = (torch.arange(ids_BT.shape[1])[None] < torch.tensor(lengths)[:, None]).long()
    return inputs, starts_B


def word_scores(model: nn.Module, batch: Batch, fast: bool, **arguments: Any) -> tuple[Tensor, Any]:
    """Return the scores over the vocabulary at ``positions_L``, shape (L, V), float32, and the model's whole output.

    Args:
        model: With an output layer over the vocabulary.
        batch: Its targets hold ``positions_L``.
        fast: Whether only these positions meet the output layer (`fast/logits.py`).
        **arguments: Further arguments of the model's forward.
    """
    from lorakit.fast.logits import labelled_only
    from lorakit.fast.shapes import rounded, rounded_row

    positions_L = batch.targets["positions_L"]
    inputs = rounded_row(batch.inputs, batch.lengths, batch.written) if batch.lengths else batch.inputs
    with labelled_only(model, rounded(positions_L)) if fast else nullcontext():
        output = model(**inputs, **arguments)
    logits_BTV = output.prediction_logits if hasattr(output, "prediction_logits") else output.logits
    logits_LV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    logits_LV = logits_LV[: len(positions_L)] if fast else logits_LV.index_select(0, positions_L)
    return logits_LV.float(), output


def at_labels(
    examples: Sequence[Example],
    inputs: dict[str, Tensor],
    positions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    packed: bool,
) -> Batch:
    """Return a batch with ``positions_L``, at which the model speaks, and ``targets_L``, what it should say there.

    Args:
        examples: Its rows.
        inputs: What the model reads of them.
        positions: Flat indices into the inputs, over B * T, of each row.
        targets: Ids, as many.
        packed: Whether the rows lie end to end.
    """
    import torch

    lengths = tuple(len(example) for example in examples)
    return Batch(
        inputs=inputs,
        targets={
            "positions_L": torch.from_numpy(np.concatenate(positions).astype(np.int64)),
            "targets_L": torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        },
        lengths=lengths if packed else (),
        rows=tuple(example.row for example in examples),
        tokens=sum(lengths),
    )


def word_loss(logits_LV: Tensor, targets_L: Tensor) -> Tensor:
    """Return the cross-entropy in nats, summed over labelled positions; shape (), float32."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits_LV, targets_L, reduction="sum")


def word_loss_sum(model: nn.Module, batch: Batch, fast: bool, **arguments: Any) -> Tensor:
    """Return `word_loss` of `word_scores`, never holding the scores of a long batch together (`fast/logits.py`).

    Args:
        model: As for `word_scores`.
        batch: Its targets hold ``positions_L`` and ``targets_L``.
        fast: As for `word_scores`.
        **arguments: Further arguments of the model's forward.
    """
    from lorakit.fast.logits import labelled_states, loss_in_parts, scored_in_parts
    from lorakit.fast.shapes import rounded, rounded_row

    positions_L, targets_L = batch.targets["positions_L"], batch.targets["targets_L"]
    if not (fast and scored_in_parts(model, len(positions_L))):
        return word_loss(word_scores(model, batch, fast, **arguments)[0], targets_L)
    inputs = rounded_row(batch.inputs, batch.lengths, batch.written) if batch.lengths else batch.inputs
    with labelled_states(model, rounded(positions_L)) as states:
        model(**inputs, **arguments)
    return loss_in_parts(model, states[0], targets_L)


def hits(logits_LO: Tensor, targets_L: Tensor) -> tuple[float, float]:
    """Return how often the highest score is the target's, and of how many."""
    return float((logits_LO.argmax(-1) == targets_L).sum()), float(len(targets_L))
