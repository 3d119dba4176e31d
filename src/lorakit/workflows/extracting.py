"""`lorakit adapter extract`: a LoRA adapter from what training made of full matrices, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lorakit.adapters import surgery
from lorakit.adapters.facts import facts
from lorakit.adapters.lora_config import LoraFile
from lorakit.adapters.lora_file import PREFIX
from lorakit.adapters.parts import Parts, PutAside
from lorakit.checkpoints.folders import check_destination, scratch_folder
from lorakit.checkpoints.weights import Place
from lorakit.errors import LorakitError
from lorakit.methods.lora import TASK_TYPES
from lorakit.methods.targets import within
from lorakit.methods.trainable import head_modules
from lorakit.workflows.rewriting import Cost, rewrite
from lorakit.workflows.surgery import Cut, choice, cut_of
from lorakit.workflows.trained_weights import Trained, open_trained

if TYPE_CHECKING:
    from torch import Tensor

    from lorakit.adapters.surgery import Choice, Pair


@dataclass(frozen=True, slots=True)
class Extracted:
    """An adapter drawn from the difference of two models."""

    cost: Cost
    cuts: tuple[Cut, ...]
    whole: tuple[str, ...]
    """Modules stored as they are: norms, what gives labels, and what the base has not."""
    left_out: dict[str, float]
    """Weights that differ and that no low-rank pair holds -> share of the squared norm of all changes, in [0, 1]."""


@dataclass(slots=True)
class _Drawn:
    """What was found so far."""

    pairs: PutAside
    cuts: list[Cut] = field(default_factory=list)
    rest: dict[str, Tensor] = field(default_factory=dict)
    whole: list[str] = field(default_factory=list)
    squares: dict[str, float] = field(default_factory=dict)
    """Squared norm of each change."""


@dataclass(frozen=True, slots=True)
class ByRank:
    """What an adapter of each rank would be."""

    parameters: int
    """Numbers that are stored of what was trained."""
    size: int
    """Bytes of its weight files."""
    costs: dict[int, Cost]
    """By rank; nothing of it was kept, so that the folders are gone."""


def extract(
    tuned: str,
    output: str | Path,
    *,
    base: str | None = None,
    rank: int | None = None,
    energy: float | None = None,
    data: str | None = None,
    force: bool = False,
    on_layer: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Write what training made of full matrices as a LoRA adapter, one layer in memory at a time.

    Matrix products become low-rank pairs; norms, what gives labels and parts that the base lacks are stored whole.
    Embeddings and biases of matrix products fit into neither, and are told.

    Args:
        tuned: Wholly trained model, or a run of `full`, `delta`, `freeze` or `head`: folder or Hub id.
        output: New folder.
        base: Model the training began from: folder, built-in or Hub id; None: the one that the run tells.
        rank: Of every layer; fewer where a change has fewer.
        energy: In (0, 1]: each layer gets the lowest rank that holds this share of the squared norm of its change.
        data: Rows to measure the loss on, of the tuned model and of base and adapter.
        force: Replace `output` where lorakit wrote it.
        on_layer: Told how many layers of how many are done.

    Raises:
        LorakitError: The base is not known, the two are not of one shape, one is a LoRA adapter, nothing differs, or
            the folder is taken.
    """
    choose, words = choice(rank, energy)
    output = Path(output).expanduser()
    trained = open_trained(tuned, base)
    check_destination(output, force, [trained.target.folder, trained.base.folder])
    with scratch_folder(output) as scratch:
        drawn = _draw(trained, scratch, choose, on_layer)
        cost = _write(trained, drawn, drawn.pairs, words, output, data=data, force=force)
    total = sum(drawn.squares.values())
    held = {f"{layer}.weight" for layer in drawn.pairs} | {name.removeprefix(PREFIX) for name in drawn.rest}
    left_out = {name: square / total for name, square in drawn.squares.items() if square and name not in held}
    return Extracted(cost, tuple(drawn.cuts), tuple(drawn.whole), left_out)


def by_rank(
    tuned: str,
    ranks: Sequence[int],
    *,
    base: str | None = None,
    data: str | None = None,
    on_layer: Callable[[int, int], None] | None = None,
) -> ByRank:
    """Return what `extract` would write at each of several ranks, and keep nothing of it.

    Each change is taken apart once: the nearest pair of a lower rank is the beginning of one of a higher rank.

    Args:
        tuned: As for `extract`.
        ranks: At least one, each 1 or more.
        base: As for `extract`.
        data: Rows to measure the loss of each rank on.
        on_layer: Told how many layers of how many are done.

    Raises:
        LorakitError: As from `extract`; a rank is below 1.
    """
    if min(ranks) < 1:
        raise LorakitError(f"--ranks holds {min(ranks)}; each must be 1 or more.")
    trained = open_trained(tuned, base)
    costs: dict[int, Cost] = {}
    before = None
    with TemporaryDirectory() as scratch:
        drawn = _draw(trained, Path(scratch), surgery.at_most(max(ranks)), on_layer)
        for rank in sorted(set(ranks)):
            pairs = {layer: pair.first(rank) for layer, pair in drawn.pairs.items()}
            with TemporaryDirectory() as folder:
                output = Path(folder) / "adapter"
                costs[rank] = _write(trained, drawn, pairs, f"rank {rank}", output, data=data, before=before)
            before = costs[rank].before
    stored = facts(trained.target.folder)
    return ByRank(stored.parameters, stored.bytes, costs)


def _write(
    trained: Trained,
    drawn: _Drawn,
    pairs: Mapping[str, Pair],
    words: str,
    output: Path,
    *,
    data: str | None,
    before: Mapping[str, float] | None = None,
    force: bool = False,
) -> Cost:
    return rewrite(
        {trained.called: trained.target},
        _config(trained, drawn),
        Parts(pairs, drawn.rest),
        f"extract from full matrices by {words}",
        output,
        base=trained.base,
        data=data,
        before=before,
        force=force,
    )


def _draw(trained: Trained, scratch: Path, choose: Choice, on_layer: Callable[[int, int], None] | None) -> _Drawn:
    """Go through the modules that own weights, one after the other; pairs are put aside in `scratch`."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    drawn, skeleton, after = _Drawn(PutAside(scratch)), trained.skeleton, trained.after
    output = skeleton.get_output_embeddings()
    # PEFT stores what gives labels whole, whether it changed or not.
    heads = head_modules(skeleton, trained.base.family) if output is None else {}
    owners = {name: module for name, module in skeleton.named_modules() if module._parameters}
    for number, (name, module) in enumerate(owners.items(), start=1):
        own = [f"{name}.{key}".lstrip(".") for key, weight in module._parameters.items() if weight is not None]
        own = [one for one in own if one in after]
        if any(trained.is_new(one) for one in own):
            _keep(drawn, name, own, after)
        elif module is output or (isinstance(module, nn.Linear | Conv1D) and not within(name, heads)):
            _draw_pair(drawn, name, module, own, trained, choose)
        else:
            drawn.squares.update({one: _square(trained.change(one)) for one in own})
            vectors = all(len(after[one].info.shape) == 1 for one in own)
            if within(name, heads) or (vectors and any(drawn.squares[one] for one in own)):
                _keep(drawn, name, own, after)
        if on_layer is not None:
            on_layer(number, len(owners))
    if not drawn.pairs:
        raise LorakitError(
            f"no matrix product of {trained.called} differs from {trained.base.called}: there is no LoRA to draw from "
            f"them."
        )
    return drawn


def _keep(drawn: _Drawn, name: str, own: list[str], after: dict[str, Place]) -> None:
    drawn.whole.append(name)
    drawn.rest.update({f"{PREFIX}{one}": after[one].read().float() for one in own})


def _draw_pair(drawn: _Drawn, name: str, module: Any, own: list[str], trained: Trained, choose: Choice) -> None:
    """Draw a pair from what changed in a matrix product; what its bias changed is counted."""
    from torch import nn

    for one in own:
        drawn.squares[one] = square = _square(trained.change(one))
        if one == f"{name}.weight" and square:
            shape = trained.after[one].info.shape
            pair, values_K = surgery.extracted_by_blocks(partial(trained.change, one), shape, choose)
            drawn.pairs.put(name, pair if isinstance(module, nn.Linear) else pair.turned)
            drawn.cuts.append(cut_of(name, values_K, pair.rank))


def _square(change: Iterable[Tensor]) -> float:
    """Return the squared norm of a change that comes in blocks."""
    return sum(float(block.norm().double().square()) for block in change)


def _config(trained: Trained, drawn: _Drawn) -> LoraFile:
    from torch import nn

    layers = dict(trained.skeleton.named_modules())
    return LoraFile(
        peft_type="LORA",
        task_type=TASK_TYPES.get(trained.target.head.task),  # type: ignore[arg-type]
        r=1,
        lora_alpha=1.0,
        target_modules=sorted(drawn.pairs),
        modules_to_save=drawn.whole or None,
        fan_in_fan_out=any(not isinstance(layers[name], nn.Linear) for name in drawn.pairs),
    )
