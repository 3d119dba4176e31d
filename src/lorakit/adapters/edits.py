"""What training changed: weight by weight, a function from the base's weight to the trained one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lorakit.adapters import changed, lora_file
from lorakit.adapters.bundle import Target
from lorakit.adapters.lora_config import LoraFile
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

Edit = Callable[["Tensor"], "Tensor"]
"""Takes a weight of the base, as its file lays it out, in float32; returns it after training, in float32."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """A LoRA pair as an edit, which some rows of a large weight can take without the others."""

    down_RI: Tensor
    up_OR: Tensor
    scale: float
    magnitude_O: Tensor | None = None
    transposed: bool = False
    """Whether the file stores the weight as (I, O), as GPT-2's Conv1D does."""

    @property
    def by_rows(self) -> bool:
        """Whether no row in the file depends on another: a learned length is that of a column of Conv1D."""
        return not self.transposed or self.magnitude_O is None

    def of_rows(self, base: Tensor, rows: slice) -> Tensor:
        """Return some rows of the file after training, given as they were."""
        if not self.transposed:
            magnitude_O = None if self.magnitude_O is None else self.magnitude_O[rows]
            return merged_weight(base, self.down_RI, self.up_OR[rows], self.scale, magnitude_O)
        if self.by_rows:
            # The transposed of B A is that of A times that of B, laid out as the file is.
            return merged_weight(base, self.up_OR.T, self.down_RI.T[rows], self.scale)
        return merged_weight(base.T, self.down_RI, self.up_OR, self.scale, self.magnitude_O).T

    def __call__(self, base: Tensor) -> Tensor:
        """Return the whole weight after training."""
        return self.of_rows(base, slice(None))


def merged_weight(
    base_OI: Tensor, down_RI: Tensor, up_OR: Tensor, scale: float, magnitude_O: Tensor | None = None
) -> Tensor:
    """Fold a LoRA pair into the weight it adapts.

    Computes ``W + scale * B A`` (Hu et al. 2021, arXiv:2106.09685, equation 3); with a magnitude, each row of that
    sum is brought to its learned length (DoRA, Liu et al. 2024, arXiv:2402.09353, equation 5).

    Args:
        base_OI: Frozen weight W, or some of its rows, shape (O, I), float32.
        down_RI: Trained A, shape (R, I).
        up_OR: Trained B, shape (O, R).
        scale: alpha / rank, or alpha / sqrt(rank).
        magnitude_O: Trained length of each row, shape (O,), above 0.

    Returns:
        New weight, shape (O, I), float32.

    Raises:
        CheckpointError: The shapes do not compose.
    """
    _check_fits(base_OI.shape, down_RI, up_OR)
    sum_OI = (up_OR.float() @ down_RI.float()).mul_(scale).add_(base_OI)
    if magnitude_O is None:
        return sum_OI
    return sum_OI * (magnitude_O.float() / sum_OI.norm(dim=1))[:, None]


def _check_fits(shape_OI: Sequence[int], down_RI: Tensor, up_OR: Tensor) -> None:
    rank = down_RI.shape[0]
    rows, columns = shape_OI
    if down_RI.shape != (rank, columns) or up_OR.shape != (rows, rank):
        raise CheckpointError(
            f"A {tuple(down_RI.shape)} and B {tuple(up_OR.shape)} do not fit W {tuple(shape_OI)}: "
            f"W (O, I) needs A (R, I) and B (O, R). Was the adapter trained on another base?"
        )


def edits_of(target: Target, skeleton: PreTrainedModel) -> dict[str, Edit]:
    """Return name of a weight -> how training changed it.

    Args:
        target: An adapter, or a ``full`` run, which changes nothing that is not in its folder already.
        skeleton: The base with the target's head; no weights are needed.

    Raises:
        CheckpointError: A tensor of the adapter is damaged or does not fit.
    """
    if target.form == "full":
        return {}
    if target.adapter is None:
        found = changed.read(target.folder, skeleton, target.trained)
        return {name: partial(_replaced, tensor) for name, tensor in found.items()}
    pairs: dict[str, dict[str, Tensor]] = {}
    whole_weights: dict[str, Edit] = {}
    for name, tensor in lora_file.read_lora_weights(target.folder).items():
        if lora_file.is_rows(name):
            weight = lora_file.adapted_weight(name)
            rows = target.adapter.rows(weight.removesuffix(".weight"))
            whole_weights[weight] = partial(_with_rows, tensor, rows)
            continue
        if not lora_file.is_pair(name):
            whole_weights[lora_file.adapted_weight(name)] = partial(_replaced, tensor)
            continue
        module, _, part = name.removeprefix(lora_file.PREFIX).rpartition(".lora_")
        pairs.setdefault(module, {})[part.removesuffix(".weight")] = tensor
    adapter = target.adapter
    layers = dict(skeleton.named_modules())
    low_rank = {
        f"{module}.weight": _lora_edit(module, pair, adapter, layers.get(module)) for module, pair in pairs.items()
    }
    return {**whole_weights, **low_rank}


def _lora_edit(module: str, pair: Mapping[str, Tensor], adapter: LoraFile, layer: nn.Module | None) -> Edit:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    needed = {"A", "B", "magnitude_vector"} if adapter.use_dora else {"A", "B"}
    if pair.keys() != needed:
        raise CheckpointError(f"the adapter should hold {sorted(needed)} for {module!r} and holds {sorted(pair)}.")
    if not isinstance(layer, nn.Linear | Conv1D):
        raise CheckpointError(f"the adapter does not fit its base: the base has no linear layer {module!r}.")
    scale = adapter.scale(module, rank=pair["A"].shape[0])
    down_RI, up_OR, magnitude_O = pair["A"], pair["B"], pair.get("magnitude_vector")
    transposed = isinstance(layer, Conv1D)
    _check_fits(layer.weight.T.shape if transposed else layer.weight.shape, down_RI, up_OR)
    return LowRank(down_RI, up_OR, scale, magnitude_O, transposed)


def _replaced(tensor: Tensor, base: Tensor) -> Tensor:
    return tensor.float()


def _with_rows(rows_ND: Tensor, ids: Sequence[int], base_VD: Tensor) -> Tensor:
    if rows_ND.shape != (len(ids), *base_VD.shape[1:]) or max(ids) >= len(base_VD):
        raise CheckpointError(
            f"the adapter does not fit its base: {len(ids)} rows of {tuple(base_VD.shape)} are {tuple(rows_ND.shape)}."
        )
    merged_VD = base_VD.clone()
    merged_VD[list(ids)] = rows_ND.float()
    return merged_VD
