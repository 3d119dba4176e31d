"""Adapters drawn from whole models: with all ranks kept, plain PEFT says what the whole model says."""

from __future__ import annotations

import shutil

import pytest
import torch
import transformers
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from conftest import save_checkpoint, tiny_gpt2, tiny_llama
from encoders import encoder_folder
from every_objective import CASES, Workshop
from lorakit.adapters.bundle import open_target
from lorakit.errors import LorakitError
from lorakit.workflows.extracting import by_rank, extract
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
    found = extract(str(pair / "tuned"), pair / "lora", base=str(pair / "base"), energy=1)
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
    found = extract(str(tmp_path / "tuned"), tmp_path / "lora", base=str(tmp_path / "base"), rank=8)
    assert {cut.rank for cut in found.cuts} == {2}
    expected = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "tuned"))
    torch.testing.assert_close(in_plain_peft(tmp_path), expected, rtol=0, atol=1e-4)


def test_an_output_layer_trained_apart_from_the_embeddings_becomes_a_pair(tmp_path):
    save_checkpoint(tmp_path / "base", tiny_llama(tie_word_embeddings=True))
    tuned = tiny_llama(tie_word_embeddings=True)
    tuned.lm_head.weight = nn.Parameter(tuned.lm_head.weight.detach() + 0.05 * torch.randn(400, 32))
    tuned.config.tie_word_embeddings = False
    save_checkpoint(tmp_path / "tuned", tuned)
    found = extract(str(tmp_path / "tuned"), tmp_path / "lora", base=str(tmp_path / "base"), energy=1)
    assert [cut.layer for cut in found.cuts] == ["lm_head"]
    torch.testing.assert_close(logits(open_target(str(tmp_path / "lora")).load()), logits(tuned), rtol=0, atol=1e-4)


def test_what_no_pair_holds_is_told_with_its_share_of_the_change(tmp_path):
    save_checkpoint(tmp_path / "base", tiny_gpt2())
    tuned = moved(tiny_gpt2(), (Conv1D,), ("weight", "bias"))
    with torch.no_grad():
        tuned.transformer.wte.weight[7] += 1.0
    save_checkpoint(tmp_path / "tuned", tuned)
    found = extract(str(tmp_path / "tuned"), tmp_path / "lora", base=str(tmp_path / "base"), rank=4)
    before, after = tiny_gpt2().state_dict(), tuned.state_dict()
    squares = {name: float((after[name] - before[name]).square().sum()) for name in before if name != "lm_head.weight"}
    expected = {
        name: square / sum(squares.values())
        for name, square in squares.items()
        if square and (name.endswith(".bias") or "wte" in name)
    }
    assert found.left_out == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("head", ["MaskedLM", "SequenceClassification"])
def test_the_pooler_and_the_head_that_a_bert_has_already_are_drawn_too(head, tmp_path):
    labels = ("a", "b") if head == "SequenceClassification" else ()
    base = encoder_folder(tmp_path / "base", f"AutoModelFor{head}", labels)
    tuned = getattr(transformers, f"AutoModelFor{head}").from_pretrained(base).eval()
    output = tuned.get_output_embeddings()
    with torch.no_grad():
        for module in tuned.modules():
            if isinstance(module, nn.Linear) and module is not output:
                module.weight.add_(0.05 * torch.randn_like(module.weight))
    tuned.save_pretrained(shutil.copytree(base, tmp_path / "tuned"))
    found = extract(str(tmp_path / "tuned"), tmp_path / "lora", base=str(base), energy=1)
    assert found.left_out == {}
    ids_BT = IDS_BT % 350
    with torch.no_grad():
        drawn, expected = open_target(str(tmp_path / "lora")).load()(ids_BT).logits, tuned(ids_BT).logits
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", ["labels-bert", "labels-t5"])
def test_a_head_that_the_base_lacks_comes_whole_with_its_labels(case, tmp_path):
    shop = Workshop.filled(tmp_path)
    chosen = CASES[case]
    run = train(tmp_path / "run", shop.model(chosen), shop.data(chosen), method="full").folder
    found = extract(str(run), tmp_path / "lora", base=str(shop.model(chosen)), rank=4, data=str(shop.data(chosen)))
    whole, drawn = weights(run), weights(tmp_path / "lora")
    heads = [name for name in drawn if ".lora_" not in name and ("classif" in name or "score" in name)]
    assert heads
    assert all(torch.equal(drawn[name], whole[name.removeprefix("base_model.model.")]) for name in heads)
    assert open_target(str(tmp_path / "lora")).head == open_target(str(run)).head
    assert found.cost.after == pytest.approx(found.cost.before[str(run)], rel=0.2)


def test_an_interrupted_extraction_leaves_neither_adapter_nor_what_was_put_aside(pair):
    def stopped(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(str(pair / "tuned"), pair / "lora", base=str(pair / "base"), rank=2, on_layer=stopped)
    assert sorted(entry.name for entry in pair.iterdir()) == ["base", "tuned"]


def test_two_models_that_do_not_differ_give_no_adapter(gpt2_folder, tmp_path):
    with pytest.raises(LorakitError, match="no matrix product"):
        extract(str(gpt2_folder), tmp_path / "lora", base=str(gpt2_folder), rank=2)
    assert not (tmp_path / "lora").exists()


def test_models_of_other_shapes_are_refused_by_the_name_of_a_weight(gpt2_folder, tmp_path):
    save_checkpoint(tmp_path / "tuned", tiny_gpt2(vocab_size=416))
    with pytest.raises(LorakitError, match=r"wte\.weight.*Tokens were added"):
        extract(str(tmp_path / "tuned"), tmp_path / "lora", base=str(gpt2_folder), rank=2)


@pytest.mark.parametrize("method", ["delta", "full", "freeze"])
def test_a_run_knows_its_base_and_all_ranks_are_what_was_trained(method, tmp_path, gpt2_folder, pairs_file):
    values = {"method": method, "optim__learning_rate": 1e-2, "optim__weight_decay": 0.0}
    run = train(tmp_path / "run", gpt2_folder, pairs_file, **values).folder
    found = extract(str(run), tmp_path / "lora", energy=1)
    drawn, base = weights(tmp_path / "lora"), AutoModelForCausalLM.from_pretrained(gpt2_folder).state_dict()
    matrices = {
        name: weight for name, weight in weights(run).items() if name.endswith(("c_attn.weight", "c_fc.weight"))
    }
    assert {f"transformer.h.1.{name}.weight" for name in ("attn.c_attn", "mlp.c_fc")} <= matrices.keys()
    for name, trained in matrices.items():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        product = drawn[f"{layer}.lora_B.weight"] @ drawn[f"{layer}.lora_A.weight"]
        torch.testing.assert_close(product.T, trained - base[name], rtol=0, atol=1e-5)
    assert (found.left_out == {}) == (method == "delta")


def test_a_delta_run_with_all_ranks_is_the_run_in_plain_peft(tmp_path, pairs_file):
    save_checkpoint(tmp_path / "base", tiny_gpt2())
    run = train(tmp_path / "run", tmp_path / "base", pairs_file, method="delta", optim__learning_rate=1e-2).folder
    extract(str(run), tmp_path / "lora", energy=1)
    expected = logits(open_target(str(run)).load())
    assert not torch.allclose(expected, logits(tiny_gpt2()), atol=1e-2)
    torch.testing.assert_close(in_plain_peft(tmp_path), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", ["labels-bert", "labels-t5"])
def test_the_head_of_a_delta_run_comes_whole(case, tmp_path):
    shop = Workshop.filled(tmp_path)
    chosen = CASES[case]
    run = train(tmp_path / "run", shop.model(chosen), shop.data(chosen), method="delta").folder
    found = by_rank(str(run), [1, 64], data=str(shop.data(chosen)))
    assert found.costs[64].after == pytest.approx(found.costs[64].before[str(run)], rel=1e-4)


def test_a_table_by_rank_tells_what_an_adapter_of_each_rank_is(tmp_path, gpt2_folder, pairs_file):
    run = train(tmp_path / "run", gpt2_folder, pairs_file, method="delta", optim__learning_rate=1e-2).folder
    found = by_rank(str(run), [8, 1, 3], data=str(pairs_file))
    assert list(found.costs) == [1, 3, 8]
    assert (found.parameters, found.size) == (
        sum(weight.numel() for weight in weights(run).values()),
        (run / "trained.safetensors").stat().st_size,
    )
    for rank, cost in found.costs.items():
        alone = extract(str(run), tmp_path / f"rank{rank}", rank=rank, data=str(pairs_file)).cost
        assert (cost.parameters, cost.size) == (alone.parameters, alone.size)
        assert (cost.before, cost.after) == (alone.before, pytest.approx(alone.after, rel=1e-5))


def test_a_run_on_another_base_than_it_tells_is_refused(tmp_path, pairs_file):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2())
    run = train(tmp_path / "run", base, pairs_file, method="full").folder
    save_checkpoint(base, tiny_gpt2(seed=9))
    with pytest.raises(LorakitError, match="trained on another base"):
        extract(str(run), tmp_path / "lora", rank=2)


def test_another_base_of_the_same_shape_is_refused_also_where_it_is_given(tmp_path, gpt2_folder, pairs_file):
    run = train(tmp_path / "run", gpt2_folder, pairs_file, method="full").folder
    other = save_checkpoint(tmp_path / "other", tiny_gpt2(seed=9))
    with pytest.raises(LorakitError, match="trained on another base"):
        extract(str(run), tmp_path / "lora", base=str(other), rank=2)


def test_what_is_a_lora_already_is_sent_to_resize(tmp_path, gpt2_folder, pairs_file):
    run = train(tmp_path / "run", gpt2_folder, pairs_file, method="lora").folder
    with pytest.raises(LorakitError, match="a LoRA adapter already: lorakit adapter resize"):
        by_rank(str(run), [2])
