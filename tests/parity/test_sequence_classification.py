"""Labels, several labels and scores of texts: the loss is transformers' own, on every kind of model."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.testing import assert_close

from conftest import SENTENCES, tiny_tokenizer
from lorakit import families
from lorakit.objectives.sequence_classification import SequenceClassification
from lorakit.objectives.settings import SequenceClassificationSettings
from lorakit.types import Job, Row

WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MODELS = {
    "bert": WIDTH,
    "roberta": {**WIDTH, "max_position_embeddings": 600, "type_vocab_size": 1},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "albert": {**WIDTH, "embedding_size": 16},
    "electra": {**WIDTH, "embedding_size": 16},
    "deberta-v2": {**WIDTH, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {**WIDTH, "max_position_embeddings": 64},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    },
}
KINDS = {"gpt2": "decoder", "llama": "decoder", "t5": "encoder_decoder", "bart": "encoder_decoder"}
LABELS = ("no", "perhaps", "yes")
TEXTS = [*SENTENCES, "fox", "the lazy dog speaks", "서울은 수도이다"]
PROBLEMS = ("single_label", "multi_label", "regression")


def tokenizer_for(model_type: str):
    """The tests' own tokenizer; encoders and encoder-decoders get a padding id of their own and an end token."""
    from tokenizers import processors

    tokenizer = tiny_tokenizer()
    if KINDS.get(model_type) == "decoder":
        return tokenizer
    tokenizer.add_special_tokens({"pad_token": "<pad>", "sep_token": "</s>", "eos_token": "</s>"})
    end = ("</s>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>:1", special_tokens=[end]
    )
    return tokenizer


def model_for(model_type: str, tokenizer, objective) -> torch.nn.Module:
    """A seeded random classifier in float64, in eval mode."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        model_type,
        **MODELS[model_type],
        vocab_size=len(tokenizer),
        num_labels=len(objective.labels),
        problem_type=objective.problem,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )
    return transformers.AutoModelForSequenceClassification.from_config(config).double().eval()


def rows_of(problem: str, paired: bool = False) -> list[Row]:
    rows = []
    for number, text in enumerate(TEXTS):
        target = {
            "single_label": {"label": LABELS[number % 3]},
            "multi_label": {"labels": [name for place, name in enumerate(LABELS) if number & (1 << place)]},
            "regression": {"score": 0.3 * number - 1},
        }[problem]
        pair = {"text_pair": TEXTS[-number - 1]} if paired else {}
        rows.append(Row({"text": text, **pair, **target}, "rows.jsonl", number + 1))
    return rows


def objective_for(model_type: str, problem: str = "single_label", rows=None, **changes) -> SequenceClassification:
    config = transformers.AutoConfig.for_model(model_type, **MODELS[model_type]).to_dict()
    settings = SequenceClassificationSettings(**changes)
    job = Job(
        settings=SequenceClassification.resolved(settings, rows or rows_of(problem)),
        tokenizer=tokenizer_for(model_type),
        family=families.Family(model_type, KINDS.get(model_type, "encoder"), "", (), None),
        config=config,
        format="labelled",
        style=None,
        max_length=512,
    )
    return SequenceClassification.of(job)


def mean_losses(objective, model, batches) -> torch.Tensor:
    sums = sum(objective.loss_sums(model, batch)["labels"] for batch in batches)
    return sums / sum(objective.counts(batch)["labels"] for batch in batches)


def cut(examples, size: int):
    return [examples[start : start + size] for start in range(0, len(examples), size)]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("model_type", MODELS)
def test_the_mean_loss_is_that_of_transformers(model_type, problem):
    objective = objective_for(model_type, problem)
    model = model_for(model_type, objective.job.tokenizer, objective)
    batch = objective.collate(objective.encode(rows_of(problem)))
    labels = batch.targets["labels_B"] if problem == "single_label" else batch.targets["labels_BO"].double()
    with torch.no_grad():
        expected = model(**batch.inputs, labels=labels).loss
        assert_close(mean_losses(objective, model, [batch]).double(), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("model_type", MODELS)
def test_cutting_a_batch_changes_neither_scores_nor_gradients(model_type, problem):
    objective = objective_for(model_type, problem)
    model = model_for(model_type, objective.job.tokenizer, objective)
    examples = objective.encode(rows_of(problem))
    found = []
    for size in (8, 2, 1):
        model.zero_grad()
        mean_losses(objective, model, [objective.collate(part) for part in cut(examples, size)]).backward()
        found.append([value.grad.clone() for value in model.parameters() if value.grad is not None])
    for gradients in found[1:]:
        for one, other in zip(found[0], gradients, strict=True):
            assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", ["balanced", {"yes": 3.0}])
@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_class_weights_count_by_their_sum_however_a_batch_is_cut(problem, weights):
    objective = objective_for("bert", problem, class_weights=weights)
    model = model_for("bert", objective.job.tokenizer, objective)
    examples = objective.encode(rows_of(problem))
    with torch.no_grad():
        whole = objective.collate(examples)
        logits = model(**whole.inputs).logits
        names = objective.job.settings.class_weights
        weight = torch.tensor([names[label] for label in objective.labels]).double()
        if problem == "single_label":
            expected = torch.nn.CrossEntropyLoss(weight=weight)(logits, whole.targets["labels_B"])
        else:
            each = torch.nn.BCEWithLogitsLoss(reduction="none")(logits, whole.targets["labels_BO"].double())
            expected = (each * weight).sum() / (weight.sum() * len(examples))
        for size in (8, 2, 1):
            batches = [objective.collate(part) for part in cut(examples, size)]
            assert_close(mean_losses(objective, model, batches).double(), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2", "t5"])
def test_pairs_side_by_side_score_as_each_alone(model_type):
    rows = rows_of("single_label", paired=True)
    objective = objective_for(model_type, rows=rows)
    model = model_for(model_type, objective.job.tokenizer, objective)
    examples = objective.encode(rows)
    with torch.no_grad():
        together = objective.outputs(model, objective.collate(examples))["logits_BO"]
        alone = [objective.outputs(model, objective.collate([example]))["logits_BO"] for example in examples]
    assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_only_pairs_on_a_model_with_token_types_get_token_types():
    pairs, singles = rows_of("single_label", paired=True), rows_of("single_label")
    has = {
        (model_type, paired): "token_type_ids" in objective.collate(objective.encode(rows)).inputs
        for model_type in ("bert", "roberta", "gpt2", "t5")
        for paired, rows in ((True, pairs), (False, singles))
        for objective in [objective_for(model_type, rows=rows)]
    }
    assert [key for key, value in has.items() if value] == [("bert", True)]


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5"])
def test_predictions_are_softmax_shares_in_the_order_of_the_rows(model_type):
    objective = objective_for(model_type)
    model = model_for(model_type, objective.job.tokenizer, objective)
    rows = [Row({"text": text}, "rows.jsonl", number) for number, text in enumerate(TEXTS, start=1)]
    found = objective.predict(model, rows, top=2, tokens=64)
    for row, prediction in zip(rows, found, strict=True):
        ids = objective.encoder.singles([row.fields["text"]])[0].ids
        with torch.no_grad():
            shares = model(torch.tensor(ids)[None].long()).logits.softmax(-1)[0]
        best = int(shares.argmax())
        assert prediction["label"] == objective.labels[best]
        assert prediction["probability"] == pytest.approx(float(shares[best]), abs=1e-6)
        assert prediction["top"][0] == {"label": prediction["label"], "probability": prediction["probability"]}
        assert len(prediction["top"]) == 2
