"""A number that is NaN is a difference, whichever text it belongs to."""

from __future__ import annotations

import math

import pytest
import torch

from lorakit.adapters.bundle import open_target
from lorakit.workflows import fitting
from lorakit.workflows.export_agreement import agree
from lorakit.workflows.probing import probes_for


class Itself:
    """The target as its own runtime, but for one NaN in what it says of the last text."""

    def __init__(self, target, last):
        self.model, self.last = target.load("float32"), last

    def _spoilt(self, numbers, ids):
        if list(ids) == self.last:
            numbers = numbers.clone()
            numbers.view(-1)[0] = math.nan
        return numbers

    def scores(self, ids):
        return self._spoilt(self.model(torch.tensor([ids])).logits[0], ids)

    def continued(self, ids, most):
        return []

    def vectors(self, ids):
        return self._spoilt(self.model.base_model(torch.tensor([ids])).last_hidden_state[0], ids)

    def pooled(self, ids):
        return self.vectors(ids).mean(0)


@pytest.mark.parametrize("name", ["tiny-gpt", "tiny-bert"])
def test_a_nan_of_a_runtime_in_the_last_text_is_a_difference(name):
    target = open_target(name)
    probes = probes_for(target)
    last = probes.objective.collate(probes.examples[-1:], packed=False).inputs["input_ids"][0].tolist()
    runtime = Itself(target, last)

    agreement = agree(target, probes, runtime, longest=512, bound=1e-4)

    assert math.isnan(agreement.difference)


def test_a_nan_in_the_second_sentence_is_a_fault_of_plain_libraries(monkeypatch):
    scores = torch.ones(1, 2)
    said = iter([[scores, scores], [scores, scores * math.nan]])
    monkeypatch.setattr(fitting, "_scores", lambda model, target: iter(next(said)))
    monkeypatch.setattr(fitting.plain, "load", lambda target: (None, []))

    _, faults = fitting.with_plain_libraries(open_target("tiny-gpt"))

    assert len(faults) == 1
