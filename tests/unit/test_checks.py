"""The look at the gradients after the first backward pass."""

from __future__ import annotations

import pytest
import torch

from lorakit.errors import TrainingError
from lorakit.training.checks import reached


def _backward(cut: bool = False):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    hidden = model[0](torch.ones(1, 3))
    model[1](hidden.detach() if cut else hidden).sum().backward()
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_gradients_everywhere_are_told():
    model, optimizer = _backward()
    assert reached(model, optimizer.param_groups) == "checks: gradients reach all 4 trained tensors and no other"


def test_a_weight_cut_off_from_the_loss_is_named():
    model, optimizer = _backward(cut=True)
    with pytest.raises(TrainingError, match=r"no gradient reaches 0.weight \(2 of 4"):
        reached(model, optimizer.param_groups)


def test_a_weight_the_optimizer_does_not_hold_is_named():
    model, _ = _backward()
    with pytest.raises(TrainingError, match=r"no gradient reaches 0\.weight"):
        reached(model, torch.optim.SGD(model[1].parameters(), lr=0.1).param_groups)


def test_a_frozen_weight_with_a_gradient_is_named():
    model, optimizer = _backward()
    model[0].weight.requires_grad_(False)
    with pytest.raises(TrainingError, match=r"reaches the frozen 0.weight"):
        reached(model, optimizer.param_groups)
