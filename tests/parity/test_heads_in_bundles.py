"""Classifiers as `lorakit train` leaves them: the head goes with the adapter, and plain libraries score the same."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from every_objective import CASES, ROWS, TEXTS, Workshop
from lorakit.adapters.bundle import open_target
from lorakit.cli.merge import merge as merge_command
from lorakit.errors import Interrupted
from lorakit.training.events import StepEvent
from lorakit.workflows.merging import merge
from runs import Listener, train, weights

LABELS = ("a", "b", "c")
METHODS = {"lora": {"name": "lora", "rank": 2}, "head": "head", "freeze": "freeze", "full": "full", "delta": "delta"}
MODEL_TYPES = ("bert", "gpt2", "t5")
LEARNING = {"optim__learning_rate": 1e-2, "train__epochs": 2, "train__rows_per_step": 4}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    return Workshop.filled(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def trained(shop):
    """Finished runs of a classifier, by model type and method, each made when it is first asked for."""
    made = {}

    def _trained(model_type, method):
        if (model_type, method) not in made:
            case = CASES[f"labels-{model_type}"]
            values = {**LEARNING, "method": METHODS[method], "data__eval": str(shop.evaluation(case))}
            folder = shop.folder / f"{model_type} {method}"
            made[model_type, method] = train(folder, shop.model(case), shop.data(case), **values).folder
        return made[model_type, method]

    return _trained


def scores(model, tokenizer) -> torch.Tensor:
    """Scores of each text alone, so that nothing pads it."""
    with torch.no_grad():
        rows = [model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)) for text in TEXTS]
    return torch.cat([row.logits for row in rows])


def plain_base(shop, model_type):
    """The base with a head drawn by other random numbers than the run's."""
    torch.manual_seed(99)
    path = str(shop.folder / model_type)
    return AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(LABELS)).eval()


def assert_same(found, expected):
    assert expected.std(0).max() > 1e-3, "the scores would not show another head"
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_plain_peft_reads_adapter_and_head_together(shop, trained, model_type):
    run = trained(model_type, "lora")
    tokenizer = AutoTokenizer.from_pretrained(str(shop.folder / model_type))
    plain = PeftModel.from_pretrained(plain_base(shop, model_type), str(run)).eval()
    assert_same(scores(plain, tokenizer), scores(open_target(str(run)).load(), tokenizer))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("method", ["head", "freeze", "delta"])
def test_changed_tensors_hold_the_head_and_make_the_model_by_hand(shop, trained, model_type, method):
    run = trained(model_type, method)
    tokenizer = AutoTokenizer.from_pretrained(str(shop.folder / model_type))
    hand = plain_base(shop, model_type)
    learned, names = weights(run), dict(hand.named_parameters())
    assert any(name.startswith(("classifier", "score", "classification_head")) for name in learned)
    with torch.no_grad():
        for name, tensor in learned.items():
            names[name].copy_(tensor)
    assert_same(scores(hand, tokenizer), scores(open_target(str(run)).load(), tokenizer))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_whole_classifier_opens_with_plain_transformers(trained, model_type):
    run = trained(model_type, "full")
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(str(run)), AutoTokenizer.from_pretrained(run)
    assert plain.config.id2label == dict(enumerate(LABELS))
    assert_same(scores(plain.eval(), tokenizer), scores(open_target(str(run)).load(), tokenizer))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("method", ["lora", "head", "freeze", "delta"])
def test_a_merged_classifier_knows_its_labels_and_scores_the_same(tmp_path, trained, model_type, method):
    run = trained(model_type, method)
    merge(str(run), tmp_path / "merged")
    path = str(tmp_path / "merged")
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert plain.config.id2label == dict(enumerate(LABELS))
    assert plain.config.label2id == {label: number for number, label in enumerate(LABELS)}
    assert_same(scores(plain.eval(), tokenizer), scores(open_target(str(run)).load(), tokenizer))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_of_a_model_that_writes_no_text_no_text_is_said_to_be_the_same(tmp_path, trained, model_type, capsys):
    merge_command(str(trained(model_type, "lora")), tmp_path / "merged")
    said = capsys.readouterr().err
    assert "same choice" in said
    assert "greedy" not in said
    assert "merge_same_text" not in (tmp_path / "merged" / "manifest.json").read_text("utf-8")


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["as given", "reversed"])
def test_the_manifest_holds_labels_in_an_order_that_rows_do_not_change(tmp_path, shop, order):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS["labelled"][order]), encoding="utf-8")
    values = {"method": "head", "data__eval": str(shop.evaluation(CASES["labels-bert"]))}
    run = train(tmp_path / "run", shop.folder / "bert", file, **values).folder
    assert json.loads((run / "manifest.json").read_text())["head"]["labels"] == list(LABELS)


@pytest.mark.parametrize("name", ["masked_lm", "labels-bert"])
def test_stopped_by_a_signal_and_resumed_it_is_the_run_that_never_stopped(tmp_path, shop, name):
    """The signal comes in the second of three epochs, each with masks of its own; dropout is on."""

    def stop(event):
        if isinstance(event, StepEvent) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    case = CASES[name]
    values = {**LEARNING, "train__epochs": 3, "train__dropout": 0.1, "method": METHODS["lora"]}
    values |= {"data__eval": str(shop.evaluation(case)), "objective": dict(case.objective)}
    start = (shop.model(case), shop.data(case))
    whole = train(tmp_path / "whole", *start, **values)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", *start, reporters=[Listener(stop)], **values)
    resumed = train(tmp_path / "stopped", resume=True)
    assert whole.state.step == 6
    assert replace(resumed.state, seconds=0) == replace(whole.state, seconds=0)
    expected = weights(whole.folder)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in weights(resumed.folder).items())
