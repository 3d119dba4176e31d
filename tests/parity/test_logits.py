"""The loss taken in parts is the cross-entropy of all scores together, and so are its gradients."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from conftest import tiny_gpt2, tiny_llama
from lorakit import families
from lorakit.fast import logits
from lorakit.fast.logits import labelled_states, loss_in_parts, prove_last, scored_in_parts
from model_types import VOCABULARY, tiny_model
from runs import a_run, random_examples, train, weights

WRITERS = [family for family in families.listed() if family.kind != "encoder"]
LENGTHS = (60, 47, 64, 33, 51, 64, 40, 58, 62, 64)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 64 positions, however few scores that is."""
    monkeypatch.setattr(logits, "_rows", lambda _: 64)


def made(family):
    auto = AutoModelForSeq2SeqLM if family.kind == "encoder_decoder" else AutoModelForCausalLM
    return tiny_model(family.model_type, auto)


@pytest.mark.parametrize("family", WRITERS, ids=lambda family: family.model_type)
def test_where_the_proof_holds_the_models_own_scores_are_those_of_its_output_layer(family):
    model = made(family)
    if not prove_last(model):
        # BART adds a bias of its own, Gemma 2 bounds its scores.
        assert family.model_type in {"bart", "mbart", "marian", "pegasus", "gemma2"}
        return
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, output: seen.append(output))
    ids = torch.randint(3, VOCABULARY, (1, 9))
    inputs = {"decoder_input_ids": ids} if family.kind == "encoder_decoder" else {}
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids, **inputs).logits, seen[0])


@pytest.mark.parametrize("family", WRITERS, ids=lambda family: family.model_type)
def test_states_that_are_scored_elsewhere_give_the_scores_of_the_model(family):
    model = made(family)
    if not prove_last(model):
        pytest.skip("its scores are never taken elsewhere")
    ids, positions = torch.randint(3, VOCABULARY, (1, 9)), torch.tensor([1, 4, 7])
    inputs = {"decoder_input_ids": ids} if family.kind == "encoder_decoder" else {}
    with torch.no_grad():
        with labelled_states(model, positions) as kept:
            model(input_ids=ids, **inputs)
        scores = model(input_ids=ids, **inputs).logits[0, positions]
        assert torch.allclose(model.get_output_embeddings()(kept[0]), scores, atol=1e-6)


def test_while_states_are_kept_the_output_layer_multiplies_nothing():
    def multiplied(_):
        raise AssertionError

    model = tiny_gpt2()
    model.lm_head.forward = multiplied
    with labelled_states(model, torch.tensor([0])):
        model(input_ids=torch.tensor([[5, 6]]))
    assert model.lm_head.forward is multiplied


def states(rows=150, vocabulary=37, bias=False, dtype=torch.float32):
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, vocabulary, bias=bias).to(dtype)
    targets = torch.randint(0, vocabulary, (rows,))
    return layer, torch.randn(rows, 16, dtype=dtype, requires_grad=True), targets


class Model(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def get_output_embeddings(self):
        return self.layer


@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients_in_parts_are_those_of_cross_entropy(small_parts, bias):
    layer, hidden, targets = states(bias=bias)
    learned = [hidden, *layer.parameters()]
    expected = 0.3 * functional.cross_entropy(layer(hidden[:141]), targets[:141], reduction="sum")
    found = 0.3 * loss_in_parts(Model(layer), hidden, targets[:141])
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    pairs = zip(torch.autograd.grad(found, learned), torch.autograd.grad(expected, learned), strict=True)
    for one, other in pairs:
        assert torch.allclose(one, other, atol=1e-5)


def test_in_bfloat16_gradients_in_parts_are_as_near_to_float64_as_those_of_cross_entropy(small_parts):
    layer, hidden, targets = states()
    exact = functional.cross_entropy(layer.double()(hidden.double()), targets, reduction="sum")
    (wanted,) = torch.autograd.grad(exact, hidden)
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        parts = loss_in_parts(Model(layer), hidden, targets)
        plain = functional.cross_entropy(layer(hidden).float(), targets, reduction="sum")
    errors = [(torch.autograd.grad(loss, hidden)[0] - wanted).norm() for loss in (parts, plain)]
    assert errors[0] < 1.1 * errors[1]
    assert parts.item() == pytest.approx(plain.item(), rel=1e-4)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_a_step_in_parts_has_the_gradients_of_the_plain_one(tmp_path, small_parts, make, packed):
    from lorakit.fast import varlen

    model = make()
    if packed:
        model.set_attn_implementation(varlen.NAME)
    examples = random_examples(LENGTHS)
    gradients = []
    for fast in (False, True):
        run = a_run(tmp_path, model, examples, packed=packed, label_logits_only=fast)
        if fast:
            assert prove_last(model)
        ((batch, _),) = run.batches(examples, 0)
        assert scored_in_parts(model, len(batch.targets["positions_L"])) == fast
        loss = run.objective.loss_sums(model, batch)["tokens"] / 100
        gradients.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_trained_adapter_is_that_of_the_plain_way(tmp_path, monkeypatch, gpt2_folder, pairs_file):
    settings = {"train__rows_per_step": 16, "optim": {"name": "sgd", "learning_rate": 0.1}}
    plain = train(tmp_path / "plain", gpt2_folder, pairs_file, speed__logits=False, **settings).folder
    monkeypatch.setattr(logits, "_rows", lambda _: 64)
    parts = train(tmp_path / "parts", gpt2_folder, pairs_file, **settings).folder
    expected = weights(plain)
    for name, tensor in weights(parts).items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name


def test_a_part_has_128_positions_however_many_words_there_are():
    layer = torch.nn.Linear(1, 50_257)
    assert logits._rows(layer) == 128


def test_few_positions_take_the_plain_way():
    model = tiny_gpt2()
    assert prove_last(model)
    assert not scored_in_parts(model, 2**21 // 400 // 64 * 64)
    assert scored_in_parts(model, 2**21 // 400 // 64 * 64 + 1)


def test_an_output_layer_with_something_put_into_it_takes_the_plain_way():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["lm_head"]))
    assert not prove_last(model)


def test_the_proof_leaves_random_numbers_alone():
    model = tiny_gpt2(resid_pdrop=0.5).train()
    before = torch.get_rng_state()
    prove_last(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_scores_are_never_held_together(monkeypatch, small_parts):
    layer, hidden, targets = states()
    widest, plain = [], functional.linear
    monkeypatch.setattr(functional, "linear", lambda *given: widest.append(len(given[0])) or plain(*given))
    loss_in_parts(Model(layer), hidden, targets)
    assert widest == [64, 64, 22]
