"""One optimizer step of every objective on every kind of model, against float64, row by row, by transformers itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from every_objective import CASES, Case, Workshop
from lorakit import families
from lorakit.objectives import KINDS
from lorakit.training import run as runs_of_loop
from lorakit.training.loop import train_window
from runs import in_float64, reference_loss

EPOCH = 3
DRAWN = ("masked_lm", "span_corruption")
"""Objectives whose labels are drawn anew each epoch."""

Terms = Iterator[tuple[str, torch.Tensor, float]]
"""Of each term of the loss: its name, its sum over one row, and over how many predictions."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    return Workshop.filled(tmp_path_factory.mktemp("every objective"))


@pytest.fixture(params=CASES, scope="module")
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def made(shop, case):
    """The objective of a case, made as `train` makes it, and its first eight examples."""
    rows = shop.rows(case)
    return rows.objective, rows.plan.examples[:8]


def test_every_objective_is_here_on_each_kind_of_model_that_it_trains():
    wanted = {(name, kind) for name, kinds in KINDS.items() for kind in kinds}
    assert {(case.name, families.of(case.model_type).kind) for case in CASES.values()} == wanted


def at_positions(case: Case, model, batch, objective) -> Terms:
    """Transformers' own mean over labelled positions."""
    labels = torch.full_like(batch.inputs["input_ids"], -100)
    labels.view(-1)[batch.targets["positions_L"]] = batch.targets["targets_L"]
    count = int((labels >= 0).sum())
    yield "words", model(**batch.inputs, labels=labels).loss * count, count


def pretraining(case: Case, model, batch, objective) -> Terms:
    """Both heads of BERT; score 0 says that the second piece follows, 1 that it is random."""
    output, words_L = model(**batch.inputs), batch.targets["targets_L"]
    scores_LV = output.prediction_logits[0].log_softmax(-1)[batch.targets["positions_L"]]
    yield "mlm", -scores_LV[torch.arange(len(words_L)), words_L].sum(), len(words_L)
    yield "nsp", -output.seq_relationship_logits[0].log_softmax(-1)[batch.targets["labels_B"][0]], 1


def written(case: Case, model, batch, objective) -> Terms:
    """Transformers' own mean over the tokens of a target, which it shifts itself."""
    target_L = batch.targets["targets_L"]
    yield "words", model(input_ids=batch.inputs["input_ids"], labels=target_L[None]).loss * len(target_L), len(target_L)


def borders(case: Case, model, batch, objective) -> Terms:
    """Transformers gives the mean of start and end, the paper their sum."""
    targets = {"start_positions": batch.targets["starts_B"], "end_positions": batch.targets["ends_B"]}
    yield "borders", model(**batch.inputs, **targets).loss * 2, 1


def classes(case: Case, model, batch, objective) -> Terms:
    """Closed forms; a weight counts as much as it weighs."""
    scores_O = model(**batch.inputs).logits[0]
    if case.rows == "scored":
        yield "labels", mse_loss(scores_O[0], batch.targets["labels_BO"][0, 0].double()), 1
    elif case.rows == "several":
        wanted_O = batch.targets["labels_BO"][0].double()
        yield "labels", binary_cross_entropy_with_logits(scores_O, wanted_O, reduction="sum"), len(wanted_O)
    else:
        label = int(batch.targets["labels_B"][0])
        weights = objective.job.settings.class_weights
        weight = 1.0 if weights is None else weights[objective.labels[label]]
        yield "labels", -weight * scores_O.log_softmax(-1)[label], weight


OF_A_ROW = {
    "masked_lm": at_positions,
    "token_classification": at_positions,
    "span_corruption": written,
    "seq2seq_lm": written,
    "question_answering": borders,
    "sequence_classification": classes,
}


def reference(case: Case, model, objective, examples) -> torch.Tensor:
    """Return the loss of a window: of each term its sum over its count, gathered row by row."""
    if case.name == "causal_lm":
        return reference_loss(model, examples)
    terms = pretraining if case.objective.get("nsp") else OF_A_ROW[case.name]
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, float] = {}
    for example in examples:
        for term, loss, count in terms(case, model, objective.collate([example], False, EPOCH), objective):
            sums[term] = sums.get(term, 0.0) + loss
            counts[term] = counts.get(term, 0.0) + count
    return sum(sums[term] / counts[term] for term in sums)


@pytest.fixture(scope="module")
def exact(shop, case):
    """The loss of a window of eight rows in float64, and its gradients."""
    run, examples = shop.run(case)
    model = in_float64(run.model).train()
    loss = reference(case, model, run.objective, examples)
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return float(loss.detach()), gradients


@pytest.fixture(params=[(8, 1), (4, 2), (1, 8)], ids=["8x1", "4x2", "1x8"])
def cut_by(request, monkeypatch):
    """Cut windows into so many micro-batches of so many rows, whatever their lengths; returns their sizes."""
    parts, size = request.param
    seen = []

    def cut(examples, budget, packed):
        groups = [list(examples[start : start + size]) for start in range(0, len(examples), size)]
        seen.extend(map(len, groups))
        return groups

    monkeypatch.setattr(runs_of_loop, "micro_batches", cut)
    yield
    assert seen == [size] * parts


def window(run, examples):
    """Return the loss of a step, and its gradients, caught before the weights change."""
    caught = {}

    def look(*_):
        named = run.model.named_parameters()
        caught.update({name: weight.grad.clone() for name, weight in named if weight.grad is not None})

    handle = run.optimizer.register_step_pre_hook(look)
    loss, _ = train_window(run, examples, 2, EPOCH)
    handle.remove()
    return loss, caught


def test_a_step_is_that_of_the_mean_over_the_window_however_it_is_cut(shop, case, exact, cut_by):
    run, examples = shop.run(case)
    loss, gradients = window(run, examples)
    expected_loss, expected = exact
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert expected.keys() <= gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in gradients.items():
        wanted = expected.get(name, torch.zeros_like(gradient))
        assert float((gradient.double() - wanted).abs().max()) <= 1e-5 * largest, name


def same(one, other) -> bool:
    """Whether two batches hold the same inputs and targets."""
    tensors = [{**batch.inputs, **batch.targets} for batch in (one, other)]
    return tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items()
    )


def test_another_epoch_has_other_labels_only_where_these_are_drawn(case, made):
    objective, examples = made
    first, again, second = (objective.collate(examples, packed=False, epoch=epoch) for epoch in (0, 0, 1))
    assert same(first, again)
    assert same(first, second) == (case.name not in DRAWN)


def test_an_evaluation_always_has_the_same_labels(made):
    objective, examples = made
    assert same(objective.collate(examples, packed=False), objective.collate(examples, packed=False))


def test_what_is_learned_of_a_row_does_not_depend_on_its_neighbours(made):
    objective, examples = made
    together = objective.collate(examples, packed=False, epoch=EPOCH).targets
    alone = [objective.collate([example], packed=False, epoch=EPOCH).targets for example in examples]
    for name, values in together.items():
        if name != "positions_L":
            assert torch.equal(values, torch.cat([targets[name] for targets in alone])), name


def test_encoding_again_gives_the_same_examples(shop, case, made):
    def contents(examples):
        return [
            [None if part is None else part.tolist() for part in (each.ids, each.labels, each.target, each.segments)]
            for each in examples
        ]

    assert contents(made[1]) == contents(shop.rows(case).plan.examples[:8])


def test_counts_are_what_losses_sum_over(shop, case, made):
    """Where all choices score alike, each prediction costs the logarithm of their number."""
    objective, examples = made
    run, _ = shop.run(case)
    batch = objective.collate(examples, run.packed, EPOCH)
    with torch.no_grad():
        outputs = objective.outputs(run.model.eval(), batch)
    alike = {name: torch.where(scores.isinf(), scores, 0.0) for name, scores in outputs.items()}
    losses, counts = objective.losses(alike, batch), objective.counts(batch)
    assert losses.keys() == counts.keys()
    for term, count in counts.items():
        if case.rows == "scored":
            expected = float((batch.targets["labels_BO"] ** 2).sum())
        elif case.name == "question_answering":
            assert count == len(examples)
            expected = sum(math.log(len(example.ids)) for example in examples)
        else:
            vocabulary = next(iter(outputs.values())).shape[-1] if term != "nsp" else 2
            expected = count * math.log(2 if case.rows == "several" else vocabulary)
        assert float(losses[term]) == pytest.approx(expected, rel=1e-5), term


@pytest.mark.parametrize("name", CASES)
def test_rows_are_packed_where_the_model_and_its_head_allow_it(shop, name):
    """Else the steps above would not be those of the fast path."""
    case = CASES[name]
    learns_its_bias = (case.model_type, case.method) == ("t5", "full")
    assert shop.run(case)[0].packed != (case.model_type == "bart" or learns_its_bias)
