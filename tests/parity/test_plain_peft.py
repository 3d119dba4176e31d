"""What lorakit saves, plain PEFT and plain transformers open, and compute the same scores with."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import PAIRS
from lorakit.adapters.bundle import open_target
from runs import train, weights

IDS = torch.randint(0, 400, (1, 40), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The pairs, for all tests of this module."""
    import json

    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    return path


def base_model(folder):
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def scores(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def assert_learned(found, base):
    """Training changed something, or an equality with the base would prove nothing."""
    assert (found - scores(base)).abs().max() > 1e-3


@pytest.mark.parametrize("base", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_an_adapter_opens_with_plain_peft_and_gives_the_same_scores(tmp_path, request, data, base, kind):
    folder = request.getfixturevalue(f"{base}_folder")
    method = {"name": "lora", "rank": 4, "alpha": 8.0, "rslora": kind == "rslora", "dora": kind == "dora"}
    run = train(tmp_path / "run", folder, data, method=method, optim__learning_rate=1e-2).folder
    plain = PeftModel.from_pretrained(base_model(folder), str(run)).eval()
    found = scores(plain)
    assert torch.equal(found, scores(open_target(str(run)).load()))
    assert_learned(found, base_model(folder))


@pytest.mark.parametrize("base", ["gpt2", "llama"])
def test_a_whole_model_opens_with_plain_transformers(tmp_path, request, data, base):
    folder = request.getfixturevalue(f"{base}_folder")
    run = train(tmp_path / "run", folder, data, method="full", optim__learning_rate=1e-3).folder
    found = scores(base_model(run))
    assert torch.equal(found, scores(open_target(str(run)).load()))
    assert_learned(found, base_model(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(run))
    assert tokenizer("서울").input_ids == AutoTokenizer.from_pretrained(str(folder))("서울").input_ids


@pytest.mark.parametrize("base", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["freeze", "head", "delta"])
def test_changed_tensors_make_the_model_that_is_made_by_hand(tmp_path, request, data, base, method):
    folder = request.getfixturevalue(f"{base}_folder")
    run = train(tmp_path / "run", folder, data, method=method, optim__learning_rate=1e-2).folder
    hand = base_model(folder)
    if method == "head" and base == "gpt2":
        hand.lm_head.weight = torch.nn.Parameter(hand.lm_head.weight.detach().clone())
    learned = weights(run)
    names = dict(hand.named_parameters())
    with torch.no_grad():
        for name, tensor in learned.items():
            names[name].copy_(tensor)
    found = scores(hand)
    assert torch.equal(found, scores(open_target(str(run)).load()))
    assert_learned(found, base_model(folder))


def test_an_adapter_gone_on_from_begins_where_the_first_training_ended(tmp_path, gpt2_folder, data):
    first = train(tmp_path / "first", gpt2_folder, data, method={"name": "lora", "rank": 4}, optim__learning_rate=1e-2)
    second = train(tmp_path / "second", first.folder, data, optim__learning_rate=1e-2)
    assert second.state.first_loss == first.state.best_loss
    assert second.prepared.loaded.recipe.method.rank == 4
    plain = PeftModel.from_pretrained(base_model(gpt2_folder), str(second.folder)).eval()
    assert torch.equal(scores(plain), scores(open_target(str(second.folder)).load()))
    assert not torch.equal(scores(plain), scores(open_target(str(first.folder)).load()))
