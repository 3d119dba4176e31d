"""A target in another runtime against itself in float32: scores or vectors, loss, and greedy text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from lorakit.adapters.bundle import Target
from lorakit.errors import LorakitError
from lorakit.objectives.base import IGNORED
from lorakit.workflows.export_order import Proof
from lorakit.workflows.probing import Probes
from lorakit.workflows.scoring import mean_of

if TYPE_CHECKING:
    from torch import Tensor

    from lorakit.generation.answers import Generation
    from lorakit.types import Batch, Example

NEW_TOKENS = 32
"""Longest continuation of a text."""


class Runtime(Protocol):
    """What reads an export that writes text."""

    def scores(self, ids: Sequence[int], *before: Sequence[int]) -> Tensor:
        """Return the logits after each token of a text, shape (T, V), float32.

        Of an encoder-decoder, `ids` are what its encoder reads, and the logits follow what its decoder has read
        (`before`).
        """

    def continued(self, ids: Sequence[int], most: int) -> list[int]:
        """Return the greedy continuation of a text, up to and with a token that ends it.

        Of an encoder-decoder, what it writes about the text.
        """


class VectorRuntime(Protocol):
    """What reads an export that turns text into numbers."""

    def vectors(self, ids: Sequence[int]) -> Tensor:
        """Return the last state of each token, shape (T, D), float32; of a model whose head is not exported."""

    def pooled(self, ids: Sequence[int]) -> Tensor:
        """Return the mean of these, shape (D,), or the scores of a text's labels, shape (O,); float32."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a runtime is from the target."""

    largest_difference: float
    """Largest absolute difference between two logits, or numbers of vectors, over all texts."""
    largest_logit: float
    """Largest absolute logit, or number, of the target."""
    loss_before: float
    """Mean loss of the target over all labels, in nats."""
    loss_after: float
    """The same of the runtime."""
    same_text: float | None
    """Share of texts continued alike, in [0, 1], up to a choice between two tokens closer than the bound; None of a
    model that writes none."""

    @property
    def difference(self) -> float:
        """Largest difference as a share of the largest logit."""
        return self.largest_difference / max(self.largest_logit, 1e-45)  # All may be 0.

    def check_exact(self, bound: float, runtime: str) -> None:
        """Raise LorakitError where the runtime says something else than the target in float32.

        Args:
            bound: Share of the largest logit by which rounding may change one.
            runtime: Name of what computed it.
        """
        if self.difference <= bound and self.same_text in (1, None):
            return
        texts = "" if self.same_text is None else f", and {self.same_text:.0%} of the texts are continued alike"
        raise LorakitError(
            f"{runtime} does not compute this model: its numbers differ by up to {self.difference:.1e} of the largest "
            f"one (at most {bound:.0e} is rounding){texts}. Nothing was written; use --to safetensors."
        )

    def proof(self, runtime: str, dtype: str, probes: Probes, notes: Iterable[str], compared: str = "logits") -> Proof:
        """Return it as what an export proves.

        Args:
            runtime: Name and version of what computed it.
            dtype: Most weights are stored in.
            probes: Texts that were compared.
            notes: What whoever uses the export must know, besides those of `probes`.
            compared: The numbers, in a word.
        """
        return Proof(
            runtime=runtime,
            dtype=dtype,
            texts=len(probes.examples),
            origin=probes.origin,
            largest_difference=self.largest_difference,
            largest_logit=self.largest_logit,
            same_text=self.same_text,
            loss_before=self.loss_before,
            loss_after=self.loss_after,
            notes=(*probes.notes, *notes),
            compared=compared,
        )


@dataclass(frozen=True, slots=True)
class _Text:
    """A text as both read it."""

    inputs: Mapping[str, Tensor]
    """Of the target's forward."""
    read: tuple[Sequence[int], ...]
    """Of the runtime's `scores`."""
    prompt: list[int]
    learned_T: Tensor
    """What is learned after each token, shape (T,), int64; -100 where nothing is."""


def agree(target: Target, probes: Probes, runtime: Any, longest: int, bound: float) -> Agreement:
    """Compare a runtime with the target on texts.

    Args:
        target: A model of any kind; of an encoder, with a head for words or whole texts.
        probes: Texts with labels, each of which leaves room for `NEW_TOKENS`.
        runtime: What was written, loaded: a `Runtime`, of an encoder a `VectorRuntime`.
        longest: Tokens that the runtime reads at most; longer texts of a decoder are cut.
        bound: Share of the largest logit by which two choices may differ and still be one.

    Raises:
        LorakitError: A logit of the target is not finite.
    """
    import torch
    from torch.nn.functional import cross_entropy

    # PEFT's wrapper hides what kind of model it is; the layers inside keep their pairs.
    model: Any = target.load("float32")
    model = model.get_base_model() if target.form == "lora" else model
    if target.base.family.kind == "encoder":
        return _agree_on_vectors(model, target, probes, runtime)
    decoder = target.base.family.kind == "decoder"
    texts = [_continued(each, longest - NEW_TOKENS) if decoder else _answered(each, probes) for each in probes.examples]
    before = after = labels = 0.0
    gaps = []
    with torch.inference_mode():
        for text in texts:
            expected_TV, found_TV = model(**text.inputs).logits[0], runtime.scores(*text.read)
            gaps.append(gap(expected_TV, found_TV))
            before += float(cross_entropy(expected_TV, text.learned_T, ignore_index=IGNORED, reduction="sum"))
            after += float(cross_entropy(found_TV, text.learned_T, ignore_index=IGNORED, reduction="sum"))
            labels += int((text.learned_T >= 0).sum())
    difference, logit = largest(gaps, target)
    written = zip(written_by(model, target, [text.prompt for text in texts]), texts, strict=True)
    same = [is_same(ours, runtime.continued(text.prompt, NEW_TOKENS), bound * logit) for ours, text in written]
    count = max(labels, 1.0)
    return Agreement(difference, logit, before / count, after / count, sum(same) / len(same))


def _continued(example: Example, longest: int) -> _Text:
    """Return a text that a decoder reads and goes on with."""
    import torch

    ids = example.ids[:longest].tolist()
    labels_T = torch.from_numpy(example.labels[: len(ids)]).long()
    learned_T = torch.cat((labels_T[1:], torch.tensor([IGNORED])))
    return _Text({"input_ids": torch.tensor([ids])}, (ids,), prompt_of(example, longest), learned_T)


def _answered(example: Example, probes: Probes) -> _Text:
    """Return a text that an encoder reads, and what a decoder is to write about it."""
    batch: Batch = probes.objective.collate([example], packed=False)
    ids = batch.inputs["input_ids"][0].tolist()
    read = (ids, batch.inputs["decoder_input_ids"][0].tolist())
    return _Text(batch.inputs, read, ids, batch.targets["targets_L"])


def prompt_of(example: Example, longest: int) -> list[int]:
    """Return the ids before the first label: the prompt of an answer, the start of a document."""
    first = int((example.labels >= 0).nonzero()[0][0])
    return example.ids[: min(max(1, first), longest)].tolist()


def written_by(model: Any, target: Target, prompts: Sequence[list[int]]) -> list[Generation]:
    """Return the target's greedy continuations, with the two best candidates of each step."""
    from lorakit.generation.answers import Watcher
    from lorakit.generation.decoding import decode
    from lorakit.generation.settings import DecodingSettings

    settings = DecodingSettings(max_new_tokens=NEW_TOKENS)
    return decode(model, list(prompts), settings, target.eos_ids, watcher=Watcher(top=2))


def is_same(text: Generation, found: Sequence[int], bound: float) -> bool:
    """Whether two greedy texts agree up to the first choice between two tokens whose logits are within the bound."""
    for token, rival, step in zip(text.ids, found, text.steps, strict=False):
        if token != rival:
            (_, best), (_, second) = step.candidates[:2]
            return math.log(best / max(second, 1e-45)) <= 2 * bound
    return len(text.ids) == len(found)


def gap(expected: Tensor, found: Tensor) -> Tensor:
    """Return the largest absolute difference of two numbers and the largest absolute one of `expected`, shape (2,)."""
    import torch

    return torch.stack(((expected - found).abs().max(), expected.abs().max()))


def largest(gaps: Sequence[Tensor], target: Target) -> tuple[float, float]:
    """Return the largest difference and the largest number of several `gap`s.

    Raises:
        LorakitError: A number of the target is not finite.
    """
    import torch

    # Not Python's `max`, which passes over a NaN that is not the first.
    difference, number = torch.stack(list(gaps)).amax(0).tolist()
    if not math.isfinite(number):
        raise LorakitError(f"{target.folder} gives numbers that are not finite: its training diverged.")
    return difference, number


def _agree_on_vectors(model: Any, target: Target, probes: Probes, runtime: VectorRuntime) -> Agreement:
    """Compare the scores that an encoder's head gives whole texts, or, of a head that is not exported, its vectors.

    All tokens are of the first text, as runtimes know no others. The loss of vectors is that of the target's own head
    on them.
    """
    import torch

    objective = probes.objective
    batches = [_of_one_text(objective.collate([example], packed=False)) for example in probes.examples]
    with torch.inference_mode():
        before = [(batch, objective.outputs(model, batch)) for batch in batches]
        if target.head.task == "sequence_classification":
            after = [(batch, {"logits_BO": runtime.pooled(_ids(batch))[None]}) for batch in batches]
            pairs = [
                (ours["logits_BO"], theirs["logits_BO"]) for (_, ours), (_, theirs) in zip(before, after, strict=True)
            ]
        else:
            pairs = [_vectors(model.base_model, batch, runtime) for batch in batches]
            setattr(model, model.base_model_prefix, _read_in(runtime, model.base_model))
            after = [(batch, objective.outputs(model, batch)) for batch in batches]
    difference, number = largest([gap(*pair) for pair in pairs], target)
    return Agreement(difference, number, mean_of(objective, before), mean_of(objective, after), None)


def _of_one_text(batch: Batch) -> Batch:
    """Return a batch whose tokens are all of the first text."""
    return replace(batch, inputs={name: each for name, each in batch.inputs.items() if name != "token_type_ids"})


def _ids(batch: Batch) -> list[int]:
    ids: list[int] = batch.inputs["input_ids"][0].tolist()
    return ids


def _vectors(body: Any, batch: Batch, runtime: VectorRuntime) -> tuple[Tensor, Tensor]:
    """Return the vectors of all tokens and their mean, those of the target first, shape (T + 1, D) each."""
    import torch

    states_TD = body(**batch.inputs).last_hidden_state[0]
    expected = torch.cat((states_TD, states_TD.mean(0, keepdim=True)))
    return expected, torch.cat((runtime.vectors(_ids(batch)), runtime.pooled(_ids(batch))[None]))


def _read_in(runtime: VectorRuntime, body: Any) -> Any:
    """Return a module in the place of an encoder, whose states are those that a runtime gives."""
    from torch import nn
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pooler = getattr(body, "pooler", None)

        def forward(self, input_ids: Tensor, **_: Any) -> BaseModelOutputWithPooling:
            states_BTD = runtime.vectors(input_ids[0].tolist())[None]
            pooled_BD = None if self.pooler is None else self.pooler(states_BTD)
            return BaseModelOutputWithPooling(last_hidden_state=states_BTD, pooler_output=pooled_BD)

    return Read()
