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
    """An edit that takes each row by itself, so that a large weight need not be held as a whole."""

    up_NR: Tensor
    """As many rows as the weight in its file: B of a linear layer, A transposed of GPT-2's Conv1D."""
    down_RM: Tensor
    """The other of the pair."""
    scale: float
    magnitude_N: Tensor | None = None

    def of_rows(self, rows: slice) -> Edit:
        """Return the edit of some rows."""
        return partial(
            merged_weight,
            down_RI=self.down_RM,
            up_OR=self.up_NR[rows],
            scale=self.scale,
            magnitude_O=None if self.magnitude_N is None else self.magnitude_N[rows],
        )

    def __call__(self, base_NM: Tensor) -> Tensor:
        """Return the whole weight after training."""
        return self.of_rows(slice(None))(base_NM)


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
    if isinstance(layer, nn.Linear):
        _check_fits(layer.weight.shape, down_RI, up_OR)
        return LowRank(up_OR, down_RI, scale, magnitude_O)
    # GPT-2's Conv1D stores (I, O), where a length is that of a column.
    _check_fits(layer.weight.T.shape, down_RI, up_OR)
    if magnitude_O is None:
        return LowRank(down_RI.T, up_OR.T, scale)
    return partial(_transposed, LowRank(up_OR, down_RI, scale, magnitude_O))


def _transposed(edit: Edit, base_IO: Tensor) -> Tensor:
    return edit(base_IO.T).T


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
