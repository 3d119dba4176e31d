"""`lorakit adapter diff`: how far two adapters of one base are apart, in their weights and in what they say next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from lorakit.adapters import surgery
from lorakit.adapters.bundle import Target
from lorakit.errors import LorakitError
from lorakit.workflows.agreeing import Source, check_heads, open_sources
from lorakit.workflows.costing import Yardstick, yardstick
from lorakit.workflows.framing_sources import check_writes
from lorakit.workflows.generating import Writer
from lorakit.workflows.scoring import scored, tokens_at_once

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class LayerApart:
    """The changes of two adapters to one layer."""

    layer: str
    norms: tuple[float, float]
    """Frobenius norm of each change; 0 where an adapter leaves the layer as it is."""
    cosine: float | None
    """Of the angle between them, in [-1, 1]; None where one is 0."""


@dataclass(frozen=True, slots=True)
class PromptApart:
    """What two adapters say next to a prompt."""

    prompt: str
    divergence: float
    """Kullback-Leibler divergence of the second one's distribution from the first one's, in nats."""
    tops: tuple[int, int]
    """Most probable token of each."""


@dataclass(frozen=True, slots=True)
class RowsApart:
    """What two adapters say to all that is learned of rows."""

    rows: int
    losses: tuple[float, float]
    """Mean loss of each, in nats."""
    predictions: int
    """Distributions that were compared: of tokens, tags or labels; 0 where the output gives none."""
    divergence: float
    """As of a prompt, mean of all predictions."""
    changed: int
    """Predictions whose most probable outcome differs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two adapters are apart."""

    names: tuple[str, str]
    layers: tuple[LayerApart, ...]
    whole: LayerApart
    """All layers as one vector."""
    parts: dict[str, bool]
    """What either stores whole beside its pairs -> whether both hold the same."""
    target: Target
    """The first."""
    prompts: tuple[PromptApart, ...] = ()
    on_rows: RowsApart | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON holds it; tokens as their ids."""
        return {
            "names": self.names,
            "layers": [asdict(one) for one in self.layers],
            "whole": asdict(self.whole),
            "parts": self.parts,
            "prompts": [asdict(one) for one in self.prompts],
            "rows": asdict(self.on_rows) if self.on_rows is not None else None,
        }


def diff(
    target: str,
    other: str,
    *,
    prompts: Sequence[str] = (),
    data: str | None = None,
    base: str | None = None,
) -> Difference:
    """Compare two adapters of one base; of layers no matrix is built.

    Args:
        target: LoRA adapter or run; prompts and rows are framed as in its training.
        other: What it is compared with.
        prompts: Texts to compare the next token after.
        data: Rows to compare all predictions and the loss on.
        base: Folder or Hub id of the base, where an adapter does not know it.

    Raises:
        LorakitError: They are of two bases, or cannot be asked the same.
    """
    sources = open_sources([target, other], base, "compared")
    first, second = sources
    if prompts or data is not None:
        check_heads(sources)
    if prompts:
        check_writes(first.target)
    products = {layer: _products(sources, layer) for layer in sorted({*first.parts.pairs, *second.parts.pairs})}
    layers = [_apart(layer, products[layer]) for layer in products]
    together = _apart("all", tuple(map(sum, zip(*products.values(), strict=True))))
    notes = tuple(note for source in sources for note in source.target.notes)
    found = Difference((target, other), tuple(layers), together, _parts(first, second), first.target, notes=notes)
    if not prompts and data is None:
        return found
    models = [source.target.load("float32", merge=True) for source in sources]
    found = replace(found, prompts=tuple(_asked(first, models, prompt) for prompt in prompts))
    if data is None:
        return found
    measure = yardstick(first.target, target, data)
    return replace(found, on_rows=_on_rows(first, models, measure), notes=(*notes, *measure.notes))


def _products(sources: Sequence[Source], layer: str) -> tuple[float, float, float]:
    """Return the squared norms of both changes of a layer and their inner product; 0 for one that is missing."""
    one, other = (source.parts.pairs.get(layer) for source in sources)
    return (
        surgery.inner(one, one) if one is not None else 0.0,
        surgery.inner(other, other) if other is not None else 0.0,
        surgery.inner(one, other) if one is not None and other is not None else 0.0,
    )


def _apart(name: str, products: Sequence[float]) -> LayerApart:
    # Rounding can bring the square of a change of nothing below 0.
    one, other, both = (max(products[0], 0.0), max(products[1], 0.0), products[2])
    cosine = both / math.sqrt(one * other) if one and other else None
    return LayerApart(name, (math.sqrt(one), math.sqrt(other)), cosine)


def _parts(first: Source, second: Source) -> dict[str, bool]:
    one, other = first.parts.rest, second.parts.rest
    both = one.keys() & other.keys()
    return {name: name in both and one[name].equal(other[name]) for name in sorted(one.keys() | other.keys())}


def _asked(first: Source, models: Sequence[nn.Module], prompt: str) -> PromptApart:
    """Let both models read a prompt, framed as in the training of the first."""
    import torch

    from lorakit.generation.encoded import context_of

    readers = [cast("PreTrainedModel", model) for model in models]
    ids = Writer(first.target, readers[0]).encode(prompt)
    with torch.inference_mode():
        one_1V, other_1V = (context_of(model, [ids]).read_prompts() for model in readers)
    divergence = float(_divergence(one_1V, other_1V))
    return PromptApart(prompt, divergence, (int(one_1V.argmax()), int(other_1V.argmax())))


def _on_rows(first: Source, models: Sequence[nn.Module], measure: Yardstick) -> RowsApart:
    """Let both models read rows, as the training of the first did."""
    objective, rows = measure.objective, measure.rows
    examples, budget = objective.encode(rows), tokens_at_once(first.target)
    predictions, divergence, changed = 0, 0.0, 0
    exclusive = first.target.head.problem in (None, "single_label_classification")
    for batches in zip(*(scored(model, objective, examples, budget) for model in models), strict=True):
        (_, _, one), (_, _, other) = batches
        # Spans are chosen by two scores, and several labels or numbers are no distribution.
        for name in (name for name in one if name.endswith("V") or (name.endswith(("LO", "BO")) and exclusive)):
            predictions += len(one[name])
            divergence += float(_divergence(one[name], other[name]))
            changed += int((one[name].argmax(-1) != other[name].argmax(-1)).sum())
    losses = measure.loss(first.target, models[0]), measure.loss(first.target, models[1])
    return RowsApart(len(rows), losses, predictions, divergence / max(1, predictions), changed)


def _divergence(one_NV: Tensor, other_NV: Tensor) -> Tensor:
    """Return the sum over N of ``sum_v p_v (log p_v - log q_v)``, p of the first scores, q of the other; shape ()."""
    from torch.nn.functional import kl_div, log_softmax

    if one_NV.shape != other_NV.shape:
        raise LorakitError(
            f"the first chooses among {one_NV.shape[-1]:,} tokens and the second among {other_NV.shape[-1]:,} "
            f"(model.add_tokens): that cannot be compared. Leave out --prompt and --data, or take others."
        )
    one_NV, other_NV = (log_softmax(scores_NV.double(), dim=-1) for scores_NV in (one_NV, other_NV))
    return kl_div(other_NV, one_NV, reduction="sum", log_target=True)
