"""A decoder in another runtime against the target in float32: scores, loss, and greedy text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lorakit.adapters.bundle import Target
from lorakit.errors import LorakitError
from lorakit.workflows.probing import Probes

if TYPE_CHECKING:
    from torch import Tensor

    from lorakit.generation.answers import Generation
    from lorakit.types import Example

NEW_TOKENS = 32
"""Longest continuation of a text."""


class Runtime(Protocol):
    """What reads an export."""

    def scores(self, ids: Sequence[int]) -> Tensor:
        """Return the logits after each token of a text, shape (T, V), float32."""

    def continued(self, ids: Sequence[int], most: int) -> list[int]:
        """Return the greedy continuation of a text, up to and with a token that ends it."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a runtime is from the target."""

    largest_difference: float
    """Largest absolute difference between two logits, over all tokens of all texts."""
    largest_logit: float
    """Largest absolute logit of the target."""
    loss_before: float
    """Mean loss of the target over all labels, in nats."""
    loss_after: float
    """The same of the runtime."""
    same_text: float
    """Share of texts continued alike, in [0, 1], up to a choice between two tokens closer than the bound."""

    @property
    def difference(self) -> float:
        """Largest difference as a share of the largest logit."""
        return self.largest_difference / self.largest_logit


def agree(target: Target, probes: Probes, runtime: Runtime, longest: int, bound: float) -> Agreement:
    """Compare a runtime with the target on texts.

    Args:
        target: A decoder that writes.
        probes: Texts with labels, each of which leaves room for `NEW_TOKENS`.
        runtime: What was written, loaded.
        longest: Tokens that the runtime reads at most; longer texts are cut.
        bound: Share of the largest logit by which two choices may differ and still be one.

    Raises:
        LorakitError: A logit of the target is not finite.
    """
    import torch
    from torch.nn.functional import cross_entropy

    # PEFT's wrapper hides what kind of model it is; the layers inside keep their pairs.
    model: Any = target.load("float32")
    model = model.get_base_model() if target.form == "lora" else model
    difference = logit = before = after = labels = 0.0
    with torch.inference_mode():
        for example in probes.examples:
            ids = example.ids[: longest - NEW_TOKENS].tolist()
            expected_TV = model(torch.tensor([ids])).logits[0]
            found_TV = runtime.scores(ids)
            learned_T = torch.from_numpy(example.labels[: len(ids)]).long()[1:]
            difference = max(difference, float((expected_TV - found_TV).abs().max()))
            logit = max(logit, float(expected_TV.abs().max()))
            before += float(cross_entropy(expected_TV[:-1], learned_T, ignore_index=-100, reduction="sum"))
            after += float(cross_entropy(found_TV[:-1], learned_T, ignore_index=-100, reduction="sum"))
            labels += int((learned_T >= 0).sum())
    if not math.isfinite(logit):
        raise LorakitError(f"{target.folder} gives numbers that are not finite: its training diverged.")
    prompts = [_prompt(example, longest - NEW_TOKENS) for example in probes.examples]
    texts = zip(_written(model, target, prompts), prompts, strict=True)
    same = [_is_same(text, runtime.continued(ids, NEW_TOKENS), bound * logit) for text, ids in texts]
    count = max(labels, 1.0)
    return Agreement(difference, logit, before / count, after / count, sum(same) / len(same))


def _prompt(example: Example, longest: int) -> list[int]:
    """Return the ids before the first label: the prompt of an answer, the start of a document."""
    first = int((example.labels >= 0).nonzero()[0][0])
    return example.ids[: min(max(1, first), longest)].tolist()


def _written(model: Any, target: Target, prompts: Sequence[list[int]]) -> list[Generation]:
    """Return the target's greedy continuations, with the two best candidates of each step."""
    from lorakit.generation.answers import Watcher
    from lorakit.generation.decoding import decode
    from lorakit.generation.settings import DecodingSettings

    settings = DecodingSettings(max_new_tokens=NEW_TOKENS)
    return decode(model, list(prompts), settings, target.eos_ids, watcher=Watcher(top=2))


def _is_same(text: Generation, found: Sequence[int], bound: float) -> bool:
    """Whether two greedy texts agree up to the first choice between two tokens whose logits are within the bound."""
    for token, rival, step in zip(text.ids, found, text.steps, strict=False):
        if token != rival:
            (_, best), (_, second) = step.candidates[:2]
            return math.log(best / max(second, 1e-45)) <= 2 * bound
    return len(text.ids) == len(found)
