"""`lorakit adapter extract`: a LoRA adapter from a base and a model that was wholly trained on it, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.adapters import surgery
from lorakit.adapters.bundle import Target, open_target
from lorakit.adapters.lora_config import LoraFile
from lorakit.adapters.lora_file import PREFIX
from lorakit.adapters.merging import model_names
from lorakit.adapters.parts import Parts
from lorakit.checkpoints import ties, weights
from lorakit.checkpoints.weights import Place
from lorakit.errors import LorakitError
from lorakit.methods.lora import TASK_TYPES
from lorakit.methods.targets import linear_layers
from lorakit.workflows.rewriting import Cost, check_output, rewrite
from lorakit.workflows.surgery import Cut, choice, cut_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from lorakit.adapters.surgery import Choice, Pair


@dataclass(frozen=True, slots=True)
class Extracted:
    """An adapter drawn from the difference of two models."""

    cost: Cost
    cuts: tuple[Cut, ...]
    whole: tuple[str, ...]
    """Modules stored as they are: norms, and what the base has not."""
    left_out: dict[str, float]
    """Weights that differ and that no low-rank pair holds -> share of the squared norm of all changes, in [0, 1]."""


@dataclass(slots=True)
class _Drawn:
    """What was found so far."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)
    rest: dict[str, Tensor] = field(default_factory=dict)
    whole: list[str] = field(default_factory=list)
    squares: dict[str, float] = field(default_factory=dict)
    """Squared norm of each change."""


def extract(
    base: str,
    tuned: str,
    output: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    data: str | None = None,
    force: bool = False,
    on_layer: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Write the difference of two models as a LoRA adapter of the first, one layer in memory at a time.

    Matrix products become low-rank pairs, norms and parts that the base lacks (a trained head) are stored whole.
    Embeddings and biases of matrix products fit into neither, and are told.

    Args:
        base: Model the training began from: folder, built-in or Hub id.
        tuned: Wholly trained model: folder, run or Hub id.
        output: New folder.
        rank: Of every layer; fewer where a change has fewer.
        energy: In (0, 1]: each layer gets the lowest rank that holds this share of the squared norm of its change.
        data: Rows to measure the loss on, of the tuned model and of base and adapter.
        force: Replace `output` where lorakit wrote it.
        on_layer: Told how many layers of how many are done.

    Raises:
        LorakitError: The two are not of one shape, one is an adapter, nothing differs, or the folder is taken.
    """
    choose, words = choice(rank, energy)
    output = Path(output).expanduser()
    below, above = _whole(base, "--base"), _whole(tuned, "--tuned")
    check_output(output, [below, above], force)
    skeleton = below.base.skeleton(above.head)
    before, after = _places(below, skeleton), _places(above, skeleton)
    _check_alike(base, tuned, skeleton, before, after)
    drawn = _draw(below, skeleton, before, after, choose, on_layer)
    if not drawn.pairs:
        raise LorakitError(f"no matrix product of {tuned} differs from {base}: there is no LoRA to draw from them.")
    total = sum(drawn.squares.values())
    held = {f"{layer}.weight" for layer in drawn.pairs} | {name.removeprefix(PREFIX) for name in drawn.rest}
    adapter = _config(skeleton, above, drawn)
    parts = Parts(drawn.pairs, drawn.rest)
    done = f"extract from a whole model by {words}"
    cost = rewrite({tuned: above}, adapter, parts, done, output, base=below.base, data=data, force=force)
    left_out = {name: square / total for name, square in drawn.squares.items() if square and name not in held}
    return Extracted(cost, tuple(drawn.cuts), tuple(drawn.whole), left_out)


def _whole(name: str, option: str) -> Target:
    target = open_target(name)
    if target.form in ("lora", "changed"):
        raise LorakitError(
            f"{option} {name} is an adapter; a whole model is needed. Merge it first: lorakit merge {name} -o DIR"
        )
    return target


def _places(target: Target, skeleton: PreTrainedModel) -> dict[str, Place]:
    """Return name in the model -> where it is stored; an output layer of its own beside embeddings included."""
    expected = skeleton.state_dict().keys()
    found = {}
    for stored, place in weights.layout(target.folder).items():
        name = next((name for name in model_names(stored, skeleton) if name in expected), None)
        if name is not None:
            found[name] = place
    return found


def _check_alike(
    base: str, tuned: str, skeleton: PreTrainedModel, before: dict[str, Place], after: dict[str, Place]
) -> None:
    parameters = dict(skeleton.named_parameters())
    lost = sorted(parameters.keys() - after.keys())
    if lost:
        raise LorakitError(f"{tuned} lacks {lost[0]!r} of the model {base} ({len(lost)} in all): not of one kind.")
    for name in sorted(before.keys() & after.keys()):
        one, other = before[name].info.shape, after[name].info.shape
        if one != other:
            cure = (
                " Tokens were added, and a LoRA of the smaller model cannot hold them." if one[1:] == other[1:] else ""
            )
            raise LorakitError(f"{name!r} is {one} in {base} and {other} in {tuned}: not of one shape.{cure}")


def _draw(
    below: Target,
    skeleton: PreTrainedModel,
    before: dict[str, Place],
    after: dict[str, Place],
    choose: Choice,
    on_layer: Callable[[int, int], None] | None,
) -> _Drawn:
    """Go through the modules that own weights, one after the other."""
    drawn = _Drawn()
    layers = linear_layers(skeleton, below.base.family, [])
    output = skeleton.get_output_embeddings()
    copies = ties.copies(skeleton)
    owners = {name: module for name, module in skeleton.named_modules() if module._parameters}
    for number, (name, module) in enumerate(owners.items(), start=1):
        own = [f"{name}.{key}".lstrip(".") for key, weight in module._parameters.items() if weight is not None]
        own = [one for one in own if one in after]
        if any(one not in before and one not in copies for one in own):
            _keep(drawn, name, own, after)
        elif name in layers or module is output:
            _draw_pair(drawn, name, module, own, before, after, copies, choose)
        elif all(len(after[one].info.shape) == 1 for one in own):
            drawn.squares.update({one: _square(_change(before[one], after[one])) for one in own})
            if any(drawn.squares[one] for one in own):
                _keep(drawn, name, own, after)
        else:
            drawn.squares.update({one: _square(_change(before[one], after[one])) for one in own})
        if on_layer is not None:
            on_layer(number, len(owners))
    return drawn


def _keep(drawn: _Drawn, name: str, own: list[str], after: dict[str, Place]) -> None:
    drawn.whole.append(name)
    drawn.rest.update({f"{PREFIX}{one}": after[one].read().float() for one in own})


def _draw_pair(
    drawn: _Drawn,
    name: str,
    module: Any,
    own: list[str],
    before: dict[str, Place],
    after: dict[str, Place],
    copies: dict[str, str],
    choose: Choice,
) -> None:
    """Draw a pair from what changed in a matrix product; what its bias changed is counted."""
    from torch import nn

    for one in own:
        # A tied output layer was the embeddings before it was trained apart from them.
        change = _change(before[one if one in before else copies[one]], after[one])
        drawn.squares[one] = square = _square(change)
        if one == f"{name}.weight" and square:
            change_OI = change if isinstance(module, nn.Linear) else change.T
            drawn.pairs[name], values_K = surgery.extracted(change_OI, choose)
            drawn.cuts.append(cut_of(name, values_K, drawn.pairs[name].rank))


def _change(before: Place, after: Place) -> Tensor:
    """Return what training added to a weight, in float32; of the weight before, blocks are held."""
    change = after.read().float()
    for rows in before.blocks():
        part = before.read(rows).float()
        change[rows] -= part
    return change


def _square(change: Tensor) -> float:
    return float(change.norm().double().square())


def _config(skeleton: PreTrainedModel, above: Target, drawn: _Drawn) -> LoraFile:
    from torch import nn

    layers = dict(skeleton.named_modules())
    return LoraFile(
        peft_type="LORA",
        task_type=TASK_TYPES.get(above.head.task),  # type: ignore[arg-type]
        r=1,
        lora_alpha=1.0,
        target_modules=sorted(drawn.pairs),
        modules_to_save=drawn.whole or None,
        fan_in_fan_out=any(not isinstance(layers[name], nn.Linear) for name in drawn.pairs),
    )
