"""`lorakit.evaluate --against`: two models on the same rows, a base as a training begins with it, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import lorakit
from conftest import save_checkpoint, tiny_gpt2, tiny_llama, tiny_tokenizer
from encoders import encoder_folder, written
from lorakit.adapters.bundle import open_target
from lorakit.errors import LorakitError
from runs import metrics, train

TEXTS = ("wake me at six", "play a song", "will it rain", "노래를 틀어 줘", "is it cold", "louder", "sun")


def adapter_on(folder: Path, base: Path) -> Path:
    """A LoRA pair on the tiny Llama, far enough from zero to be seen."""
    model = get_peft_model(tiny_llama(), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def test_an_adapter_is_set_beside_its_base_on_the_same_rows(llama_folder, pairs_file, tmp_path):
    adapter = adapter_on(tmp_path / "adapter", llama_folder)
    found = lorakit.evaluate(adapter, pairs_file, against="base", base=str(llama_folder))
    alone = lorakit.evaluate(llama_folder, pairs_file).target.scores
    assert found.against.scores == alone
    assert found.target.scores["perplexity"] != alone["perplexity"]
    gap = found.target.scores["perplexity"].value - alone["perplexity"].value
    assert found.differences["perplexity"].value == pytest.approx(gap)


def test_a_target_beside_itself_differs_by_nothing_at_all(gpt2_folder, pairs_file):
    found = lorakit.evaluate(gpt2_folder, pairs_file, against=gpt2_folder)
    assert {(one.value, one.low, one.high) for one in found.differences.values()} == {(0.0, 0.0, 0.0)}


def test_models_with_other_tokens_are_compared_by_bytes_alone(gpt2_folder, pairs_file, tmp_path):
    other = save_checkpoint(tmp_path / "other", tiny_gpt2(vocab_size=300), tiny_tokenizer(300))
    found = lorakit.evaluate(gpt2_folder, pairs_file, against=other)
    assert list(found.differences) == ["bits_per_byte"]
    assert "other tokens" in found.notes[-1]


def test_a_base_has_no_base_to_be_compared_with(gpt2_folder, pairs_file):
    with pytest.raises(LorakitError, match=r"is a base model itself.*--against OTHER"):
        lorakit.evaluate(gpt2_folder, pairs_file, against="base")


@pytest.fixture(scope="module")
def run_on_masks(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A base that fills masks, rows with scores, and a run that gave the base a head drawn from the seed 3."""
    folder = tmp_path_factory.mktemp("began")
    base = encoder_folder(folder / "bert", "AutoModelForMaskedLM")
    rows = [{"text": text, "score": number / 2} for number, text in enumerate(TEXTS)]
    file = written(folder / "rows.jsonl", rows)
    learned = written(folder / "learned.jsonl", [{**row, "text": f"please {row['text']}"} for row in rows])
    train(folder / "run", base, learned, data__eval=str(file), train__seed=3, train__max_steps=1)
    return base, file, folder / "run"


def test_a_base_without_the_head_is_measured_as_the_training_began_with_it(run_on_masks):
    _, file, run = run_on_masks
    found = lorakit.evaluate(run, file, against="base")
    before = next(line for line in metrics(run) if line["kind"] == "evaluation")
    assert before["step"] == 0
    assert found.against.name == "base, new head"
    assert found.against.scores["mean_squared_error"].value == pytest.approx(before["loss"], rel=1e-5)
    assert any("new head: the head is new" in note and "learned nothing" in note for note in found.notes)


def test_another_base_without_the_head_gets_a_new_one_too(run_on_masks):
    base, file, run = run_on_masks
    found = lorakit.evaluate(run, file, against=base)
    assert found.against.name == f"{base}, new head"
    assert found.against.scores == lorakit.evaluate(run, file, against="base").against.scores


def test_targets_that_learned_different_things_are_not_compared(run_on_masks, tmp_path):
    _, file, run = run_on_masks
    other = encoder_folder(tmp_path / "ner", "AutoModelForTokenClassification", ("O", "B-LOC"))
    with pytest.raises(LorakitError, match=r"learned sequence_classification and .* token_classification"):
        lorakit.evaluate(run, file, against=other)


def test_a_model_of_scores_is_not_compared_with_one_of_labels(run_on_masks, tmp_path):
    _, file, run = run_on_masks
    named = {"problem_type": "single_label_classification"}
    other = encoder_folder(tmp_path / "cls", "AutoModelForSequenceClassification", ("a", "b"), **named)
    with pytest.raises(LorakitError, match=r"learned scores and .* labels: no measure is of both"):
        lorakit.evaluate(run, file, against=other)


@pytest.mark.parametrize("form", ["builtin", "copy"])
def test_a_whole_model_whose_base_is_not_at_hand_is_a_base_itself(form, tmp_path):
    shipped = open_target("tiny-bert").folder
    name = "tiny-bert" if form == "builtin" else str(shutil.copytree(shipped, tmp_path / "copy"))
    file = written(tmp_path / "rows.jsonl", [{"text": "One."}, {"text": "Two."}])
    with pytest.raises(LorakitError, match=r"is a base model itself.*a folder, a built-in name or a Hub id"):
        lorakit.evaluate(name, file, against="base")
