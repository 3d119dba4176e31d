"""A trained model beside the base it was trained on, weight by weight: where both store it, and what changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters import changed
from lorakit.adapters.bundle import Target, check_base, open_base, open_target
from lorakit.adapters.forms import form_of
from lorakit.adapters.manifest import read_manifest
from lorakit.adapters.merging import model_names
from lorakit.checkpoints import ties, weights
from lorakit.checkpoints.finding import Checkpoint
from lorakit.checkpoints.locating import locate
from lorakit.checkpoints.weights import Place
from lorakit.errors import LorakitError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Trained:
    """A model whose weights are stored in full, and its base."""

    called: str
    base: Checkpoint
    target: Target
    skeleton: PreTrainedModel
    """The base with the head that was trained; no weights."""
    before: dict[str, Place]
    """Name in the model -> where the base stores it."""
    after: dict[str, Place]
    """The same for the trained model; what training left as it was may be the base's own."""
    copies: dict[str, str]
    """Further names of a weight -> the one under which the base stores it."""

    def change(self, name: str) -> Iterator[Tensor]:
        """Yield what training added to a weight, in float32, some rows at a time."""
        # A tied output layer was the embeddings before it was trained apart from them.
        before = self.before[name if name in self.before else self.copies[name]]
        for rows in before.blocks():
            yield self.after[name].read(rows).float() - before.read(rows).float()

    def is_new(self, name: str) -> bool:
        """Whether the base has no such weight."""
        return name not in self.before and name not in self.copies


def open_trained(tuned: str, base: str | None) -> Trained:
    """Open a model and the base it was trained on.

    Args:
        tuned: Whole model, or a run of any method but LoRA: folder, built-in or Hub id.
        base: The same of the base; None: the one that the run tells.

    Raises:
        LorakitError: The base is not known or another one, the two are not of one shape, or one is an adapter of LoRA.
    """
    located = locate(tuned, base=base)
    folder = located.folder
    beside = form_of(folder, read_manifest(folder)) == "changed"
    target = open_target(tuned, base=base if beside or located.difference else None)
    if target.form == "lora":
        raise LorakitError(f"--tuned {tuned} is a LoRA adapter already: lorakit adapter resize {tuned} cuts its ranks.")
    below = target.base if beside else _base_of(target, base)
    skeleton = below.skeleton(target.head)
    before = _places(below.folder, skeleton)
    after = {**before, **_places(folder / changed.WEIGHTS, skeleton)} if beside else _places(folder, skeleton)
    _check_alike(below.called, tuned, skeleton, before, after)
    return Trained(tuned, below, target, skeleton, before, after, ties.copies(skeleton))


def _base_of(target: Target, given: str | None) -> Checkpoint:
    """Return what a whole model was trained on: the very one that its manifest tells; without one as given."""
    if given is None:
        below = open_base(target.folder, target.manifest, None, None)
    else:
        found = open_target(given)
        if found.form in ("lora", "changed"):
            raise LorakitError(
                f"--base {given} is an adapter; a whole model is needed. Merge it first: lorakit merge {given} -o DIR"
            )
        below = found.base
    check_base(replace(target, base=below))
    return below


def _places(source: Path, skeleton: PreTrainedModel) -> dict[str, Place]:
    """Return name in the model -> where it is stored; an output layer of its own beside embeddings included."""
    expected = skeleton.state_dict().keys()
    found = {}
    for stored, place in weights.layout(source).items():
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
