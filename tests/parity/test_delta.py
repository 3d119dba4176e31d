"""Matrices of full shape beside frozen ones: the steps of full fine-tuning, whatever way the model computes."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

import model_trials
from conftest import save_checkpoint, tiny_gpt2, tiny_llama
from lorakit import families, methods
from lorakit.adapters.changed import write
from lorakit.checkpoints.finding import find, quiet
from lorakit.errors import TrainingError
from lorakit.methods.settings import DeltaSettings
from lorakit.training import memory, optim
from lorakit.training.settings import AdamWSettings
from runs import recipe, train, weights

TYPES = {"gpt2": "causal_lm", "llama": "sequence_classification", "bert": "masked_lm", "t5": "seq2seq_lm"}
MATRICES = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def applied(model, model_type="gpt2", **settings):
    return methods.load("delta")(model, DeltaSettings(**settings), families.of(model_type))


def stored(folder, model):
    """What a run would write of a model."""
    folder.mkdir(exist_ok=True)
    write(folder, model)
    return load_file(folder / "trained.safetensors")


@pytest.mark.parametrize("model_type", TYPES)
def test_steps_of_gradient_descent_are_those_of_the_same_matrices_alone(tmp_path, model_type):
    """The slope in D is the slope in W + D, so that every step of the sum is a step of full fine-tuning."""
    trial = dict(model_trials.trials(model_trials.make_checkpoint(tmp_path / "base", model_type)))[TYPES[model_type]]
    model, plain = copy.deepcopy(trial.model).double(), copy.deepcopy(trial.model).double().requires_grad_(False)
    with quiet():
        model, trainable = methods.load("delta")(
            model, DeltaSettings(), trial.checkpoint.family, trial.objective.head, trial.fresh
        )
    for name in trainable.names:
        plain.get_parameter(name).requires_grad_(True)
    for each in (model, plain):
        learning = [weight for weight in each.parameters() if weight.requires_grad]
        steps = torch.optim.SGD(learning, lr=0.1)
        for _ in range(3):
            steps.zero_grad()
            sum(trial.objective.loss_sums(each, trial.batch).values()).backward()
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            steps.step()
    sums, start = stored(tmp_path / "run", model), dict(trial.model.named_parameters())
    assert {name for name in sums if torch.equal(sums[name], start[name])} == set()
    for name, weight in sums.items():
        torch.testing.assert_close(weight, plain.get_parameter(name).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("make", "model_type"), [(tiny_gpt2, "gpt2"), (tiny_llama, "llama")])
def test_each_layer_gives_its_product_and_that_of_the_added_matrix(make, model_type):
    model, trainable = applied(make(), model_type)
    for name in trainable.names:
        layer = model.get_submodule(name.removesuffix(".weight"))
        parts = dict(layer.parametrizations.named_parameters())
        torch.nn.init.normal_(parts["weight.0.change"], std=0.1)
        frozen, added = (parts[part].detach() for part in ("weight.original", "weight.0.change"))
        if model_type == "llama":
            frozen, added = frozen.T, added.T
        x = torch.randn(5, len(frozen))
        bias = 0 if layer.bias is None else layer.bias
        torch.testing.assert_close(layer(x), x @ frozen + x @ added + bias, rtol=1e-4, atol=1e-4)


def test_the_matrices_that_lora_would_reach_learn_and_begin_at_the_base():
    model, trainable = applied(tiny_gpt2())
    expected = [f"transformer.h.{block}.{layer}.weight" for block in range(2) for layer in MATRICES]
    assert sorted(trainable.names) == sorted(expected)
    assert trainable.trained == sum(tiny_gpt2().get_parameter(name).numel() for name in expected)
    ids = torch.arange(10)[None]
    assert torch.equal(model.eval()(ids).logits, tiny_gpt2().eval()(ids).logits)


def test_targets_and_last_blocks_are_those_of_lora():
    names = applied(tiny_gpt2(), targets=["c_fc"], last_blocks=1)[1].names
    assert names == ("transformer.h.1.mlp.c_fc.weight",)
    with pytest.raises(TrainingError, match="'c_fx' matches no linear layer"):
        applied(tiny_gpt2(), targets=["c_fx"])


def test_weight_decay_draws_the_model_to_its_base(tmp_path):
    model, _ = applied(tiny_gpt2(), targets=["c_fc"])
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        torch.nn.init.ones_(weight)
        weight.grad = torch.zeros_like(weight)
    optim.build(model, AdamWSettings(weight_decay=0.5), 0.1).step()
    for name, weight in stored(tmp_path, model).items():
        torch.testing.assert_close(weight, tiny_gpt2().get_parameter(name) + (1 - 0.1 * 0.5))


def test_changes_too_small_for_the_base_s_own_dtype_are_kept(tmp_path, pairs_file):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2().bfloat16())
    values = {"train__dtype": "bfloat16", "optim__learning_rate": 1e-4}
    run = train(tmp_path / "run", base, pairs_file, method="delta", **values)
    before = find(str(base)).load().state_dict()
    for name, weight in weights(run.folder).items():
        assert weight.dtype == torch.float32
        small = (weight != before[name]) & (weight.bfloat16().float() == before[name])
        assert small.float().mean() > 0.2
    assert run.finished.difference == 0


@pytest.mark.parametrize("way", [{"train__gradient_checkpointing": True}, {"speed__varlen": False}])
def test_every_way_of_computing_trains_the_same_matrices(tmp_path, gpt2_folder, pairs_file, way):
    values = {"method": "delta", "optim": {"name": "sgd", "learning_rate": 0.1}}
    plain = weights(train(tmp_path / "plain", gpt2_folder, pairs_file, **values).folder)
    for name, weight in weights(train(tmp_path / "way", gpt2_folder, pairs_file, **values, **way).folder).items():
        torch.testing.assert_close(weight, plain[name], rtol=0, atol=1e-6)


def test_below_the_last_blocks_the_model_is_computed_once(tmp_path, pairs_file):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2(n_layer=3))
    values = {"method": {"name": "delta", "last_blocks": 1}, "train__epochs": 3, "optim__learning_rate": 1e-3}
    once = train(tmp_path / "once", base, pairs_file, **values).folder
    anew = weights(train(tmp_path / "anew", base, pairs_file, speed__frontier=False, **values).folder)
    assert "frontier" in (once / "manifest.json").read_text()
    for name, weight in weights(once).items():
        torch.testing.assert_close(weight, anew[name], rtol=0, atol=1e-5)


def test_training_on_begins_where_the_first_training_ended(tmp_path, gpt2_folder, pairs_file):
    first = train(tmp_path / "first", gpt2_folder, pairs_file, method="delta", optim__learning_rate=1e-2)
    second = train(tmp_path / "second", first.folder, pairs_file, optim__learning_rate=1e-2)
    assert second.state.first_loss == pytest.approx(first.state.best_loss, rel=1e-6)
    assert second.prepared.loaded.recipe.method.name == "delta"


def test_memory_is_that_of_slopes_moments_and_sums():
    model, trainable = applied(tiny_gpt2())
    assert memory.gradients_and_moments(model) == 16 * trainable.trained


def test_the_parts_of_deepspeed_are_refused_with_what_to_do_instead(gpt2_folder, pairs_file):
    from lorakit.workflows.building import build
    from lorakit.workflows.preparing import prepare_rows

    asked = recipe(gpt2_folder, pairs_file, method="delta").recipe
    with pytest.raises(TrainingError, match=r"which cannot cut a sum of two weights\. Use FSDP2, or method full"):
        build(asked, prepare_rows(asked), torch.device("cpu"), 2, cut="zero-3")
