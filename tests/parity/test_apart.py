"""How far adapters are apart, held to full matrices of PEFT and to scores that transformers computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from bundles import trained_run
from conftest import PAIRS, save_checkpoint, tiny_gpt2
from every_objective import CASES, Workshop
from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError
from lorakit.methods.settings import LoraSettings
from lorakit.workflows.differing import diff
from lorakit.workflows.generating import open_writer
from runs import train, weights


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A base and two adapters: of other ranks and scales, the second of fewer layers."""
    root = tmp_path_factory.mktemp("runs")
    base = save_checkpoint(root / "base", tiny_gpt2())
    trained_run(root / "one", find(str(base)), LoraSettings(rank=4, alpha=8.0, rslora=True), "lora", 1)
    trained_run(root / "other", find(str(base)), LoraSettings(rank=2, alpha=3.0, targets=["c_attn"]), "lora", 2)
    return base, root / "one", root / "other"


def in_peft(base: Path, folder: Path, kind=AutoModelForCausalLM):
    return PeftModel.from_pretrained(kind.from_pretrained(base), folder).eval()


def changes(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    layers = in_peft(base, folder).get_base_model().named_modules()
    return {name: layer.get_delta_weight("default").double() for name, layer in layers if isinstance(layer, LoraLayer)}


def divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    one, other = one.double().softmax(-1), other.double().softmax(-1)
    return (one * (one / other).log()).sum(-1)


def test_lengths_and_angles_are_those_of_the_full_changes(runs):
    base, *folders = runs
    one, other = (changes(base, folder) for folder in folders)
    found = diff(*map(str, folders))
    assert [layer.layer for layer in found.layers] == sorted(one)
    for layer in found.layers:
        first, second = one[layer.layer], other.get(layer.layer)
        assert layer.norms[0] == pytest.approx(float(first.norm()), rel=1e-5)
        if second is None:
            assert (layer.norms[1], layer.cosine) == (0.0, None)
            continue
        assert layer.norms[1] == pytest.approx(float(second.norm()), rel=1e-5)
        assert layer.cosine == pytest.approx(float((first * second).sum() / first.norm() / second.norm()), abs=1e-5)
    squares = [sum(float(change.square().sum()) for change in side.values()) for side in (one, other)]
    assert found.whole.norms == pytest.approx([square**0.5 for square in squares], rel=1e-5)
    both = sum(float((one[name] * other[name]).sum()) for name in other)
    assert found.whole.cosine == pytest.approx(both / (squares[0] * squares[1]) ** 0.5, abs=1e-5)


def test_next_tokens_diverge_as_the_scores_of_peft_do(runs):
    base, *folders = runs
    prompts = ["name: Alder | area: north", "Once"]
    found = diff(*map(str, folders), prompts=prompts)
    for prompt, apart in zip(prompts, found.prompts, strict=True):
        ids = torch.tensor([open_writer(folders[0]).encode(prompt)])
        with torch.no_grad():
            one, other = (in_peft(base, folder)(ids).logits[0, -1] for folder in folders)
        assert apart.divergence == pytest.approx(float(divergence(one, other)), rel=1e-3)
        assert apart.tops == (int(one.argmax()), int(other.argmax()))
    assert all(apart.divergence > 0.01 for apart in found.prompts)


def test_rows_are_compared_at_every_learned_token(runs, pairs_file):
    base, *folders = runs
    on_rows = diff(*map(str, folders), data=str(pairs_file)).on_rows
    models, tokenizer = [in_peft(base, folder) for folder in folders], open_writer(folders[0]).target.tokenizer
    apart, changed, losses, count = 0.0, 0, [0.0, 0.0], 0
    for row in PAIRS:
        prompt = tokenizer(f"{row['prompt']} => ").input_ids
        answer = [*tokenizer(row["completion"]).input_ids, 0]
        with torch.no_grad():
            one, other = (model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] for model in models)
        apart += float(divergence(one, other).sum())
        changed += int((one.argmax(-1) != other.argmax(-1)).sum())
        for side, scores in enumerate((one, other)):
            losses[side] += float(torch.nn.functional.cross_entropy(scores, torch.tensor(answer), reduction="sum"))
        count += len(answer)
    assert (on_rows.rows, on_rows.predictions) == (len(PAIRS), count)
    assert on_rows.divergence == pytest.approx(apart / count, rel=1e-4)
    assert abs(on_rows.changed - changed) <= 1
    assert on_rows.losses == pytest.approx([loss / count for loss in losses], rel=1e-4)


def test_an_adapter_is_not_apart_from_itself(runs, pairs_file):
    found = diff(str(runs[1]), str(runs[1]), prompts=["Once"], data=str(pairs_file))
    assert [layer.cosine for layer in found.layers] == pytest.approx([1.0] * 8, abs=1e-12)
    assert (found.prompts[0].divergence, found.on_rows.divergence, found.on_rows.changed) == (0.0, 0.0, 0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    return Workshop.filled(tmp_path_factory.mktemp("shop"))


def two_runs(root: Path, shop: Workshop, name: str) -> tuple[Path, Path]:
    case = CASES[name]
    settings = {"method": {"name": "lora", "rank": 2}, "optim__learning_rate": 0.05}
    for seed, run in enumerate(("one", "other")):
        train(root / run, shop.model(case), shop.data(case), **settings, train__seed=seed)
    return root / "one", root / "other"


def test_an_encoder_decoder_is_asked_for_the_first_token_it_writes(shop, tmp_path):
    folders = two_runs(tmp_path, shop, "seq2seq_lm-t5")
    found = diff(*map(str, folders), prompts=["Once upon a time"])
    ids = torch.tensor([open_writer(folders[0]).encode("Once upon a time")])
    base = shop.model(CASES["seq2seq_lm-t5"])
    with torch.no_grad():
        models = (in_peft(base, folder, AutoModelForSeq2SeqLM) for folder in folders)
        one, other = (
            model(input_ids=ids, decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id]])).logits[0, -1]
            for model in models
        )
    assert found.prompts[0].divergence == pytest.approx(float(divergence(one, other)), rel=1e-3)
    assert found.prompts[0].divergence > 1e-4


def test_classifiers_are_compared_by_labels_and_their_heads_are_told(shop, tmp_path):
    folders = two_runs(tmp_path, shop, "labels-bert")
    data = str(shop.data(CASES["labels-bert"]))
    found = diff(*map(str, folders), data=data)
    heads = [name for name in weights(folders[0]) if ".lora_" not in name]
    assert found.parts == dict.fromkeys(sorted(heads), False)
    assert set(diff(str(folders[0]), str(folders[0])).parts.values()) == {True}
    assert found.on_rows.predictions == found.on_rows.rows > 0
    assert found.on_rows.divergence > 0
    with pytest.raises(LorakitError, match="lorakit predict"):
        diff(*map(str, folders), prompts=["Once"])


def test_several_labels_at_once_are_no_distribution_and_only_their_loss_is_told(shop, tmp_path):
    case = CASES["several-bert"]
    run = str(train(tmp_path / "run", shop.model(case), shop.data(case), method={"name": "lora", "rank": 2}).folder)
    on_rows = diff(run, run, data=str(shop.data(case))).on_rows
    assert (on_rows.predictions, on_rows.divergence) == (0, 0.0)
    assert on_rows.losses[0] > 0


def test_adapters_of_two_bases_are_refused(runs, tmp_path):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2(seed=1))
    trained_run(tmp_path / "far", find(str(base)), LoraSettings(rank=4), "lora")
    with pytest.raises(LorakitError, match="adapters of one base"):
        diff(str(runs[1]), str(tmp_path / "far"))


def test_two_vocabularies_have_no_next_token_in_common_but_layers(tmp_path, pairs_file):
    base = save_checkpoint(tmp_path / "base", tiny_gpt2(tie_word_embeddings=False))
    train(tmp_path / "new", base, pairs_file, model__add_tokens=["Dahlia"])
    train(tmp_path / "old", base, pairs_file)
    folders = str(tmp_path / "new"), str(tmp_path / "old")
    assert diff(*folders).whole.cosine is not None
    with pytest.raises(LorakitError, match=r"401 tokens.*400.*cannot be compared"):
        diff(*folders, prompts=["Once"])


def test_what_is_told_as_json_holds_every_layer(runs):
    found = json.loads(json.dumps(diff(*map(str, runs[1:]), prompts=["Once"]).as_json()))
    assert len(found["layers"]) == 8
    assert found["prompts"][0].keys() == {"prompt", "divergence", "tops"}
    assert found["rows"] is None
