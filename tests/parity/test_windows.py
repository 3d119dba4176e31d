"""One optimizer step against plain torch in float64: the cut into micro-batches changes nothing but memory."""

import copy
import math
import warnings

import pytest
import torch

from conftest import tiny_gpt2, tiny_llama
from lorakit.data.batching import FixedPlan
from lorakit.errors import TrainingError
from lorakit.training.loop import train_window
from lorakit.training.settings import SgdSettings
from runs import a_run, in_float64, random_examples, reference_loss, train, weights

LENGTHS = (5, 13, 2, 28, 9, 21, 7, 16)
MODELS = {"gpt2": tiny_gpt2, "llama": tiny_llama}
BUDGETS = {"8x1": 1, "4x2": 60, "1x8": 10**6}
"""Tokens computed at once: single rows, a few micro-batches, all rows together."""


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def sgd(clip):
    return SgdSettings(learning_rate=0.1, weight_decay=0.0, warmup=0.0, clip=clip)


def gradients_of(run, examples):
    """The gradients of one window, caught in the optimizer's step."""
    caught = {}

    def look(*_):
        caught.update(
            {name: weight.grad.clone() for name, weight in run.model.named_parameters() if weight.grad is not None}
        )

    handle = run.optimizer.register_step_pre_hook(look)
    loss, norm = train_window(run, examples, 1)
    handle.remove()
    return loss, norm, caught


def reference_step(model, examples, rate, clip=math.inf):
    """Loss, gradients and weights after one SGD step, in float64."""
    exact = in_float64(model)
    loss = reference_loss(exact, examples)
    loss.backward()
    gradients = {name: weight.grad for name, weight in exact.named_parameters()}
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
    factor = min(1.0, clip / norm)
    stepped = {name: weight.detach() - rate * factor * gradients[name] for name, weight in exact.named_parameters()}
    return float(loss.detach()), norm, gradients, stepped


def assert_close(found, expected, bound=2e-6):
    assert found.keys() == expected.keys()
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    for name, tensor in expected.items():
        assert float((found[name].detach().double() - tensor).abs().max()) <= bound * max(1.0, largest), name


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS.keys())
def test_loss_gradients_and_step_are_those_of_the_mean_per_label(tmp_path, model, budget):
    examples = random_examples(LENGTHS)
    loss, norm, gradients, stepped = reference_step(model, examples, rate=0.1)
    run = a_run(tmp_path, model, examples, budget=budget, optim=sgd(math.inf))
    found_loss, found_norm, found = gradients_of(run, examples)
    assert found_loss == pytest.approx(loss, rel=1e-6)
    assert found_norm == pytest.approx(norm, rel=1e-5)
    assert_close(found, gradients)
    assert_close(dict(run.model.named_parameters()), stepped)


def test_the_budgets_above_cut_the_window_into_eight_several_and_one(tmp_path):
    examples = random_examples(LENGTHS)
    cuts = [
        len(a_run(tmp_path, tiny_gpt2(), examples, budget=budget).batches(examples, 0)) for budget in BUDGETS.values()
    ]
    assert cuts[0] == 8
    assert 1 < cuts[1] < 8
    assert cuts[2] == 1


def test_a_mean_of_micro_batch_means_would_be_another_loss(tmp_path):
    examples = random_examples(LENGTHS)
    model = in_float64(tiny_gpt2())
    means = [float(reference_loss(model, [example]).detach()) for example in examples]
    wrong = sum(means) / len(means)
    assert abs(wrong - float(reference_loss(model, examples).detach())) > 1e-3


@pytest.mark.parametrize("clip", [0.25, 0.5])
def test_the_gradient_is_clipped_once_over_the_whole_window(tmp_path, clip):
    model, examples = tiny_gpt2(), random_examples(LENGTHS)
    _, norm, _, stepped = reference_step(model, examples, rate=0.1, clip=clip)
    assert norm > 0.5
    run = a_run(tmp_path, model, examples, budget=1, optim=sgd(clip))
    _, reported = train_window(run, examples, 1)
    assert reported == pytest.approx(norm, rel=1e-5)
    assert_close(dict(run.model.named_parameters()), stepped)


def test_the_last_shorter_window_of_an_epoch_counts_its_own_labels(tmp_path):
    model, examples = tiny_gpt2(), random_examples(LENGTHS)
    run = a_run(tmp_path, model, examples, optim=sgd(math.inf), rows_per_step=3)
    windows = [window for _, window in run.plan.steps()][:3]
    assert [len(window) for window in windows] == [3, 3, 2]
    loss, _, _, stepped = reference_step(model, windows[2], rate=0.1)
    assert train_window(run, windows[2], 1)[0] == pytest.approx(loss, rel=1e-6)
    assert_close(dict(run.model.named_parameters()), stepped)


def test_a_step_holds_as_many_rows_as_its_tokens_allow():
    examples = random_examples(LENGTHS)
    for limit in (30, 45, 1000):
        steps = [step for _, step in FixedPlan(examples, 0, 1, tokens_per_step=limit).steps()]
        sizes = [sum(map(len, step)) for step in steps]
        assert all(size <= limit for size in sizes)
        assert all(size + len(later[0]) > limit for size, later in zip(sizes, steps[1:], strict=False))


def test_a_window_without_a_label_is_an_error_and_changes_no_weight(tmp_path):
    model = tiny_gpt2()
    before = copy.deepcopy(model.state_dict())
    (example,) = random_examples([6])
    example.labels[:] = -100
    with pytest.raises(TrainingError, match="nothing of this step is learned"):
        train_window(a_run(tmp_path, model, [example], evaluation=[example]), [example], 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("base", ["gpt2_folder", "llama_folder"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_recomputed_activations_change_no_weight_and_warn_of_nothing(tmp_path, request, pairs_file, base, method):
    folder = request.getfixturevalue(base)
    plain = train(tmp_path / "plain", folder, pairs_file, method=method).folder
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        again = train(tmp_path / "again", folder, pairs_file, method=method, train__gradient_checkpointing=True).folder
    recomputed = weights(again)
    for name, tensor in weights(plain).items():
        assert torch.allclose(recomputed[name], tensor, atol=1e-7), name
