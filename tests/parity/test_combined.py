"""Combined adapters beside PEFT's `add_weighted_adapter`, and beside full matrices added by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from bundles import trained_run
from conftest import PAIRS, save_checkpoint, tiny_gpt2, tiny_llama
from every_objective import CASES, Workshop
from lorakit.adapters.bundle import open_target
from lorakit.adapters.manifest import read_manifest
from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError
from lorakit.methods.settings import LoraSettings
from lorakit.workflows.checking import check
from lorakit.workflows.combining import combine, scale, subtract
from lorakit.workflows.generating import generate
from lorakit.workflows.merging import merge
from runs import train, weights

IDS_BT = torch.arange(40).reshape(2, 20) * 7 % 400
GPT2 = {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS_BT).logits


def plain(base: Path):
    return AutoModelForCausalLM.from_pretrained(base)


def in_plain_peft(base: Path, folder: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(plain(base), folder))


def by_peft(base: Path, folder: Path, seed: int, **settings) -> str:
    """An adapter made by PEFT alone, every trained weight moved."""
    wrapped = get_peft_model(plain(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return str(folder)


def with_both(base: Path, one: str, other: str) -> PeftModel:
    model = PeftModel.from_pretrained(plain(base), one, adapter_name="one")
    model.load_adapter(other, adapter_name="other")
    return model


def with_changes(base: Path, *weighted: tuple[str, float]):
    """The base with full changes added to its weights, each as PEFT computes it."""
    model = plain(base)
    own = dict(model.named_modules())
    for folder, weight in weighted:
        wrapped = PeftModel.from_pretrained(plain(base), folder).get_base_model()
        for name, layer in wrapped.named_modules():
            if isinstance(layer, LoraLayer):
                own[name].weight.data += weight * layer.get_delta_weight("default")
    return model


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, str, str]:
    """A base and two adapters of it, of one rank; the second changes more layers."""
    root = tmp_path_factory.mktemp("pair")
    base = save_checkpoint(root / "base", tiny_gpt2())
    one = by_peft(base, root / "one", 1, **GPT2)
    more = {**GPT2, "lora_alpha": 3, "target_modules": ["c_attn", "mlp.c_fc"]}
    return base, one, by_peft(base, root / "other", 2, **more)


WAYS = {
    "cat": {},
    "linear": {},
    "svd": {},
    "svd at rank 2": {"rank": 2},
    "ties": {"density": 0.5},
    "ties of all": {"density": 1.0},
    "ties_svd": {"density": 0.4, "rank": 3},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shares", [(0.7, 0.3), (1.5, -0.5)])
@pytest.mark.filterwarnings("ignore:The density")
def test_a_combination_scores_as_the_one_peft_makes(pair, way, shares, tmp_path):
    base, one, other = pair
    how, settings = way.split()[0], WAYS[way]
    if how.startswith("ties") and shares[1] < 0:
        with pytest.raises(LorakitError, match="vote on the sign"):
            combine([(one, shares[0]), (other, shares[1])], tmp_path / "both", how=how, base=str(base), **settings)
        assert not (tmp_path / "both").exists()
        return
    combine([(one, shares[0]), (other, shares[1])], tmp_path / "both", how=how, base=str(base), **settings)
    model = with_both(base, one, other)
    model.add_weighted_adapter(
        ["one", "other"], list(shares), "both", how, svd_rank=settings.get("rank"), density=settings.get("density")
    )
    model.set_adapter("both")
    found = in_plain_peft(base, tmp_path / "both")
    torch.testing.assert_close(found, logits(model), rtol=0, atol=1e-4)
    assert (found - logits(plain(base))).abs().max() > 0.1


def test_dare_drops_what_peft_drops_with_the_same_random_numbers(pair, tmp_path):
    base, one, other = pair
    given = [(one, 0.7), (other, -0.3)]
    combine(given, tmp_path / "both", how="dare", density=0.5, seed=5, base=str(base))
    found, model = weights(tmp_path / "both"), with_both(base, one, other)
    layers = {name: layer for name, layer in model.base_model.named_modules() if isinstance(layer, LoraLayer)}
    torch.manual_seed(5)
    for name in sorted(layers):
        down, up = model.base_model._generalized_task_arithmetic_weighted_adapter(
            "dare_linear", ["one", "other"], [0.7, -0.3], layers[name], 0.5, "total"
        )
        torch.testing.assert_close(found[f"base_model.{name}.lora_A.weight"], down)
        torch.testing.assert_close(found[f"base_model.{name}.lora_B.weight"], up)
    assert (down == 0).any()


SETTINGS = {
    "rsLoRA beside LoRA": (LoraSettings(rank=4, alpha=8.0, rslora=True), LoraSettings(rank=2, alpha=8.0)),
    "layers of one alone": (LoraSettings(rank=4, last_blocks=1), LoraSettings(rank=3, targets="all-linear")),
}
PATTERNS = {**GPT2, "rank_pattern": {"h.0.attn.c_attn": 2}, "alpha_pattern": {"c_attn": 3}, "target_modules": r".*c_.*"}


@pytest.fixture(scope="module", params=[*SETTINGS, "patterns", "llama"])
def different(request, tmp_path_factory) -> tuple[Path, str, str]:
    """A base and two adapters of it that differ in ranks, scales or layers."""
    root = tmp_path_factory.mktemp("different")
    base = save_checkpoint(root / "base", tiny_llama() if request.param == "llama" else tiny_gpt2())
    if request.param == "patterns":
        return base, by_peft(base, root / "one", 1, **PATTERNS), by_peft(base, root / "other", 2, **GPT2)
    settings = SETTINGS.get(request.param, SETTINGS["layers of one alone"])
    for seed, (name, one) in enumerate(zip(("one", "other"), settings, strict=True)):
        trained_run(root / name, find(str(base)), one, "lora", seed)
    return base, str(root / "one"), str(root / "other")


def test_a_sum_is_that_of_the_full_changes(different, tmp_path):
    base, one, other = different
    combine([(one, 0.7), (other, -1.3)], tmp_path / "both", base=str(base))
    expected = logits(with_changes(base, (one, 0.7), (other, -1.3)))
    torch.testing.assert_close(in_plain_peft(base, tmp_path / "both"), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits(open_target(str(tmp_path / "both")).load()), expected, rtol=0, atol=1e-4)
    merge(str(tmp_path / "both"), tmp_path / "merged")
    torch.testing.assert_close(logits(plain(tmp_path / "merged")), expected, rtol=0, atol=1e-4)


def test_what_was_taken_away_and_added_again_leaves_the_adapter(different, tmp_path):
    base, one, other = different
    subtract(one, other, tmp_path / "less", base=str(base))
    expected = logits(with_changes(base, (one, 1), (other, -1)))
    torch.testing.assert_close(in_plain_peft(base, tmp_path / "less"), expected, rtol=0, atol=1e-4)
    combine([(str(tmp_path / "less"), 1), (other, 1)], tmp_path / "again", how="cat", base=str(base))
    torch.testing.assert_close(
        in_plain_peft(base, tmp_path / "again"), in_plain_peft(base, Path(one)), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("factor", [0.5, -2.0])
def test_a_scaled_adapter_changes_that_much(different, factor, tmp_path):
    base, one, _ = different
    scale(one, factor, tmp_path / "scaled", base=str(base))
    expected = logits(with_changes(base, (one, factor)))
    torch.testing.assert_close(in_plain_peft(base, tmp_path / "scaled"), expected, rtol=0, atol=1e-4)


def test_an_svd_that_keeps_all_of_the_energy_is_the_sum(different, tmp_path):
    base, one, other = different
    combine([(one, 0.5), (other, 0.5)], tmp_path / "both", how="svd", energy=1.0, base=str(base))
    expected = logits(with_changes(base, (one, 0.5), (other, 0.5)))
    torch.testing.assert_close(in_plain_peft(base, tmp_path / "both"), expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("runs")
    base = find(str(save_checkpoint(root / "base", tiny_gpt2())))
    trained_run(root / "one", base, LoraSettings(rank=4, alpha=8.0, targets=["c_attn"]), "lora", 1)
    trained_run(root / "other", base, LoraSettings(rank=6, alpha=8.0, targets="all-linear"), "lora", 2)
    return str(root / "one"), str(root / "other")


def test_a_combination_is_an_adapter_without_fault_that_says_what_was_done(runs, tmp_path):
    found = combine([(runs[0], 0.7), (runs[1], 0.3)], tmp_path / "both", how="svd", rank=3)
    checked = check(str(tmp_path / "both"))
    assert [one.faults for one in checked.looked if one.faults] == []
    assert len(generate(str(tmp_path / "both"), "The quick")) == 1
    (done,) = read_manifest(tmp_path / "both").surgery
    assert re.fullmatch(r"combine by svd \(rank 3\): 0.7 of sha256:\w{12}, 0.3 of sha256:\w{12}", done)
    assert (found.result.layers, found.result.ranks) == (8, (3, 3))


def test_ranks_of_a_sum_add_up_where_both_change_a_layer(runs, tmp_path):
    found = combine([(runs[0], 0.7), (runs[1], 0.3)], tmp_path / "both")
    assert [one.ranks for one in found.taken] == [(4, 4), (6, 6)]
    assert found.result.ranks == (6, 10)


def test_the_loss_of_each_and_of_the_result_is_measured(runs, pairs_file, tmp_path):
    cost = combine([(runs[0], 1), (runs[1], 1)], tmp_path / "both", data=str(pairs_file)).cost
    again = scale(str(tmp_path / "both"), 1.0, tmp_path / "same", data=str(pairs_file)).cost
    assert cost.before.keys() == set(runs)
    assert len({*cost.before.values(), cost.after}) == 3
    assert again.before[str(tmp_path / "both")] == pytest.approx(cost.after, rel=1e-6)
    assert (cost.rows, read_manifest(tmp_path / "both").metrics["loss_after"]) == (len(PAIRS), cost.after)


def heads(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights(folder).items() if ".lora_" not in name}


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("classifiers")
    shop, case = Workshop.filled(root), CASES["labels-bert"]
    for seed, name in enumerate(("one", "other")):
        train(root / name, shop.model(case), shop.data(case), method={"name": "lora", "rank": 4}, train__seed=seed)
    return str(root / "one"), str(root / "other")


def test_heads_that_the_base_lacks_are_averaged_where_weights_sum_to_1(classifiers, tmp_path):
    combine([(classifiers[0], 0.75), (classifiers[1], 0.25)], tmp_path / "both")
    one, other, both = (heads(Path(folder)) for folder in (*classifiers, tmp_path / "both"))
    assert both
    for name, tensor in both.items():
        torch.testing.assert_close(tensor, 0.75 * one[name] + 0.25 * other[name])
    assert open_target(str(tmp_path / "both")).head == open_target(classifiers[0]).head
    assert [one.faults for one in check(str(tmp_path / "both")).looked if one.faults] == []


def test_heads_that_the_base_lacks_are_no_change_to_be_taken_away(classifiers, tmp_path):
    with pytest.raises(LorakitError, match=r"classifier.*which the base lacks.*sum to 1.*sum to 0"):
        subtract(*classifiers, tmp_path / "less")
    assert not (tmp_path / "less").exists()


def test_a_scaled_adapter_keeps_its_head(classifiers, tmp_path):
    scale(classifiers[0], 0.5, tmp_path / "half")
    before, after = heads(Path(classifiers[0])), heads(tmp_path / "half")
    assert before
    assert all(tensor.equal(after[name]) for name, tensor in before.items())


def test_a_norm_stored_whole_moves_from_that_of_the_base(tmp_path):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2())
    one = by_peft(base, tmp_path / "one", 1, **GPT2, modules_to_save=["ln_f"])
    other = by_peft(base, tmp_path / "other", 2, **GPT2)
    combine([(one, 0.5), (other, 2)], tmp_path / "both", base=str(base))
    expected = with_changes(base, (one, 0.5), (other, 2))
    trained = weights(Path(one))["base_model.model.transformer.ln_f.weight"]
    expected.transformer.ln_f.weight.data.lerp_(trained, 0.5)
    bias = weights(Path(one))["base_model.model.transformer.ln_f.bias"]
    expected.transformer.ln_f.bias.data.lerp_(bias, 0.5)
    torch.testing.assert_close(in_plain_peft(base, tmp_path / "both"), logits(expected), rtol=0, atol=1e-4)


def test_rows_of_new_tokens_stay_beside_an_adapter_without_them_that_stands_second(pairs_file, tmp_path):
    base = save_checkpoint(tmp_path / "base", tiny_llama())
    train(tmp_path / "new", base, pairs_file, model__add_tokens=["Dahlia", "강남"])
    train(tmp_path / "old", base, pairs_file)
    given = [(str(tmp_path / "new"), 0.7), (str(tmp_path / "old"), 0.3)]
    combine(given, tmp_path / "both")
    before, after = heads(tmp_path / "new"), heads(tmp_path / "both")
    assert len(before) == 2
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    assert [one.faults for one in check(str(tmp_path / "both")).looked if one.faults] == []
    with pytest.raises(LorakitError, match=r"added 'Dahlia', '강남'.*none.*first"):
        combine(given[::-1], tmp_path / "other")


def test_adapters_of_other_weights_are_refused_before_anything_is_written(runs, tmp_path):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2(seed=1))
    trained_run(tmp_path / "far", find(str(base)), LoraSettings(rank=4), "lora")
    with pytest.raises(LorakitError, match=r"sha256:.*sha256:.*adapters of one base"):
        combine([(runs[0], 1), (str(tmp_path / "far"), 1)], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_adapters_of_other_outputs_are_refused(runs, classifiers, tmp_path):
    shop, case = Workshop.filled(tmp_path), CASES["tags-bert"]
    tags = train(tmp_path / "tags", shop.model(case), shop.data(case), method={"name": "lora", "rank": 4}).folder
    with pytest.raises(LorakitError, match=r"sequence_classification.*token_classification.*learned the same"):
        combine([(classifiers[0], 0.5), (str(tags), 0.5)], tmp_path / "both", base=None)


def test_dora_is_refused_with_the_reason(runs, tmp_path):
    base = open_target(runs[0]).base
    trained_run(tmp_path / "dora", base, LoraSettings(rank=4, dora=True), "lora")
    with pytest.raises(LorakitError, match=r"DoRA: each row.*cannot be scaled.*method.dora"):
        scale(str(tmp_path / "dora"), 0.5, tmp_path / "half")


def test_factors_of_other_ranks_are_not_added_and_the_message_says_what_to_do(runs, tmp_path):
    with pytest.raises(LorakitError, match=r"rank 4.*and 6.*cat or svd.*resize"):
        combine([(runs[0], 1), (runs[1], 1)], tmp_path / "both", how="linear")


def test_a_pair_and_a_whole_weight_for_one_layer_are_refused(pair, tmp_path):
    base, one, _ = pair
    other = by_peft(base, tmp_path / "other", 2, r=2, target_modules=["c_fc"], modules_to_save=["c_attn"])
    with pytest.raises(LorakitError, match=r"a low-rank pair for .*c_attn.weight.*the whole weight"):
        combine([(one, 1), (other, 1)], tmp_path / "both", base=str(base))


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        (1, {}, "adapter scale"),
        (2, {"how": "tis"}, "ties"),
        (2, {"rank": 4}, "cat cuts no rank"),
        (2, {"how": "svd", "rank": 4, "energy": 0.5}, "one of the two"),
        (2, {"how": "ties"}, "needs --density"),
        (2, {"how": "svd", "density": 0.5}, "keeps every number"),
        (2, {"how": "dare", "density": 1.5}, "--density is 1.5"),
    ],
)
def test_options_that_do_not_belong_together_are_refused_before_anything_is_opened(given, asked, said, tmp_path):
    with pytest.raises(LorakitError, match=said):
        combine([(str(tmp_path / "nothing"), 1.0)] * given, tmp_path / "both", **asked)


@pytest.mark.parametrize("weight", [1e300, 1e30, -1e20, 1e-20, 1e-40])
def test_a_weight_that_leads_out_of_float32_is_refused_by_its_name(weight, tmp_path):
    with pytest.raises(LorakitError, match=re.escape(f"nothing is {weight:g}, with which numbers leave float32")):
        scale(str(tmp_path / "nothing"), weight, tmp_path / "half")


def test_a_change_that_leaves_float32_after_several_steps_names_the_last_weight(pair, tmp_path):
    base, one, _ = pair
    scale(one, 1e19, tmp_path / "large", base=str(base))
    scale(str(tmp_path / "large"), 1e18, tmp_path / "larger")
    with pytest.raises(LorakitError, match=r"^1e\+10 of .*larger is more than float32 holds"):
        scale(str(tmp_path / "larger"), 1e10, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_number_or_leaves_an_adapter_out_is_refused(weight, tmp_path):
    with pytest.raises(LorakitError, match="must be a number other than 0"):
        scale(str(tmp_path / "nothing"), weight, tmp_path / "half")


def test_a_combination_of_others_that_were_trained_on_other_rows_names_no_rows(pairs_file, tmp_path):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2())
    train(tmp_path / "one", base, pairs_file)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(pairs_file.read_text("utf-8").splitlines(keepends=True)[:12]), encoding="utf-8")
    train(tmp_path / "other", base, fewer)
    combine([(str(tmp_path / "one"), 1), (str(tmp_path / "other"), 1)], tmp_path / "both")
    scale(str(tmp_path / "one"), 0.5, tmp_path / "half")
    one = read_manifest(tmp_path / "one").data
    assert one is not None
    assert (read_manifest(tmp_path / "both").data, read_manifest(tmp_path / "half").data) == (None, one)
