"""Adapters drawn from whole models: with all ranks kept, plain PEFT says what the whole model says."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from conftest import save_checkpoint, tiny_gpt2, tiny_llama
from every_objective import CASES, Workshop
from lorakit.adapters.bundle import open_target
from lorakit.errors import LorakitError
from lorakit.workflows.extracting import extract
from lorakit.workflows.merging import merge
from runs import train, weights

IDS_BT = torch.arange(40).reshape(2, 20) * 7 % 400


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS_BT).logits


def moved(model, kinds: tuple[type, ...], parts: tuple[str, ...] = ("weight",), rank: int | None = None):
    """The model after a training that reached some kinds of modules."""
    torch.manual_seed(5)
    tied = model.get_input_embeddings().weight
    with torch.no_grad():
        for module in model.modules():
            for part in parts if isinstance(module, kinds) else ():
                weight = getattr(module, part, None)
                if weight is None or weight is tied:
                    continue
                change = 0.05 * torch.randn_like(weight)
                if rank is not None:
                    change = 0.1 * torch.randn(len(weight), rank) @ torch.randn(rank, weight.shape[1])
                weight.add_(change)
    return model


def norms(model) -> tuple[type, ...]:
    return tuple({type(module) for module in model.modules() if "Norm" in type(module).__name__})


@pytest.fixture(params=["gpt2", "llama"])
def pair(request, tmp_path):
    """Folders of a base and of a model whose matrix products and norms learned; of a llama its output layer too."""
    make = {"gpt2": tiny_gpt2, "llama": tiny_llama}[request.param]
    save_checkpoint(tmp_path / "base", make())
    tuned = moved(make(), (nn.Linear, Conv1D, *norms(make())))
    save_checkpoint(tmp_path / "tuned", tuned)
    return tmp_path


def in_plain_peft(folder) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "lora"))


def test_with_all_ranks_base_and_adapter_are_the_whole_model(pair):
    found = extract(str(pair / "base"), str(pair / "tuned"), pair / "lora", energy=1)
    expected = logits(AutoModelForCausalLM.from_pretrained(pair / "tuned"))
    torch.testing.assert_close(in_plain_peft(pair), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits(open_target(str(pair / "lora")).load()), expected, rtol=0, atol=1e-4)
    assert found.left_out == {}
    merge(str(pair / "lora"), pair / "merged")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(pair / "merged")), expected, rtol=0, atol=1e-4
    )


def test_a_change_of_low_rank_is_found_at_that_rank(tmp_path):
    save_checkpoint(tmp_path / "base", tiny_gpt2())
    save_checkpoint(tmp_path / "tuned", moved(tiny_gpt2(), (Conv1D,), rank=2))
    found = extract(str(tmp_path / "base"), str(tmp_path / "tuned"), tmp_path / "lora", rank=8)
    assert {cut.rank for cut in found.cuts} == {2}
    expected = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "tuned"))
    torch.testing.assert_close(in_plain_peft(tmp_path), expected, rtol=0, atol=1e-4)


def test_an_output_layer_trained_apart_from_the_embeddings_becomes_a_pair(tmp_path):
    save_checkpoint(tmp_path / "base", tiny_llama(tie_word_embeddings=True))
    tuned = tiny_llama(tie_word_embeddings=True)
    tuned.lm_head.weight = nn.Parameter(tuned.lm_head.weight.detach() + 0.05 * torch.randn(400, 32))
    tuned.config.tie_word_embeddings = False
    save_checkpoint(tmp_path / "tuned", tuned)
    found = extract(str(tmp_path / "base"), str(tmp_path / "tuned"), tmp_path / "lora", energy=1)
    assert [cut.layer for cut in found.cuts] == ["lm_head"]
    torch.testing.assert_close(logits(open_target(str(tmp_path / "lora")).load()), logits(tuned), rtol=0, atol=1e-4)


def test_what_no_pair_holds_is_told_with_its_share_of_the_change(tmp_path):
    save_checkpoint(tmp_path / "base", tiny_gpt2())
    tuned = moved(tiny_gpt2(), (Conv1D,), ("weight", "bias"))
    with torch.no_grad():
        tuned.transformer.wte.weight[7] += 1.0
    save_checkpoint(tmp_path / "tuned", tuned)
    found = extract(str(tmp_path / "base"), str(tmp_path / "tuned"), tmp_path / "lora", rank=4)
    before, after = tiny_gpt2().state_dict(), tuned.state_dict()
    squares = {name: float((after[name] - before[name]).square().sum()) for name in before if name != "lm_head.weight"}
    expected = {
        name: square / sum(squares.values())
        for name, square in squares.items()
        if square and (name.endswith(".bias") or "wte" in name)
    }
    assert found.left_out == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("case", ["labels-bert", "labels-t5"])
def test_a_head_that_the_base_lacks_comes_whole_with_its_labels(case, tmp_path):
    shop = Workshop.filled(tmp_path)
    chosen = CASES[case]
    run = train(tmp_path / "run", shop.model(chosen), shop.data(chosen), method="full").folder
    found = extract(str(shop.model(chosen)), str(run), tmp_path / "lora", rank=4, data=str(shop.data(chosen)))
    whole, drawn = weights(run), weights(tmp_path / "lora")
    heads = [name for name in drawn if ".lora_" not in name and ("classif" in name or "score" in name)]
    assert heads
    assert all(torch.equal(drawn[name], whole[name.removeprefix("base_model.model.")]) for name in heads)
    assert open_target(str(tmp_path / "lora")).head == open_target(str(run)).head
    assert found.cost.after == pytest.approx(found.cost.before[str(run)], rel=0.2)


def test_two_models_that_do_not_differ_give_no_adapter(gpt2_folder, tmp_path):
    with pytest.raises(LorakitError, match="no matrix product"):
        extract(str(gpt2_folder), str(gpt2_folder), tmp_path / "lora", rank=2)
    assert not (tmp_path / "lora").exists()


def test_models_of_other_shapes_are_refused_by_the_name_of_a_weight(gpt2_folder, tmp_path):
    save_checkpoint(tmp_path / "tuned", tiny_gpt2(vocab_size=416))
    with pytest.raises(LorakitError, match=r"wte\.weight.*Tokens were added"):
        extract(str(gpt2_folder), str(tmp_path / "tuned"), tmp_path / "lora", rank=2)
