"""Losses of hidden words and next sentences are transformers' own, in whatever batches the rows come."""

import numpy as np
import pytest
import torch

from lorakit import families
from lorakit.fast import varlen
from masking import DOCUMENTS, SHAPES, made, masked_lm

PACKING = [model_type for model_type in SHAPES if families.of(model_type).packs]


def labelled(batch):
    """The targets as transformers takes them: one a position, -100 where nothing is hidden."""
    labels = torch.full_like(batch.inputs["input_ids"], -100)
    labels.view(-1)[batch.targets["positions_L"]] = batch.targets["targets_L"]
    return labels


def own_loss(model, batch):
    """Transformers' mean over the hidden tokens of a padded batch."""
    with torch.no_grad():
        return model(**batch.inputs, labels=labelled(batch)).loss.item()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("model_type", SHAPES)
def test_the_loss_of_hidden_words_is_transformers_own(model_type, fast):
    learner, model = masked_lm(model_type, label_logits_only=fast), made(model_type).double()
    batch = learner.collate(learner.encode(DOCUMENTS), packed=False, epoch=0)
    with torch.no_grad():
        found = learner.loss_sums(model, batch)["mlm"].item() / learner.counts(batch)["mlm"]
    assert found == pytest.approx(own_loss(model, batch), rel=1e-6)


def test_both_losses_of_pretraining_are_transformers_own():
    learner, model = masked_lm(nsp=True), made(auto="AutoModelForPreTraining").double()
    batch = learner.collate(learner.encode(DOCUMENTS), packed=False, epoch=0)
    with torch.no_grad():
        sums, counts = learner.loss_sums(model, batch), learner.counts(batch)
        output = model(**batch.inputs, labels=labelled(batch), next_sentence_label=batch.targets["labels_B"])
    assert set(batch.targets["labels_B"].tolist()) == {0, 1}
    assert sum(sums[term].item() / counts[term] for term in ("mlm", "nsp")) == pytest.approx(
        output.loss.item(), rel=1e-6
    )


def test_accuracies_are_counted_over_their_own_predictions():
    learner, model = masked_lm(nsp=True), made(auto="AutoModelForPreTraining")
    batch = learner.collate(learner.encode(DOCUMENTS), packed=False)
    with torch.no_grad():
        tallies = learner.tallies(learner.outputs(model, batch), batch)
        output = model(**batch.inputs)
    labels = labelled(batch)
    words = (output.prediction_logits.argmax(-1) == labels).sum().item()
    pairs = (output.seq_relationship_logits.argmax(-1) == batch.targets["labels_B"]).sum().item()
    assert tallies == {"mlm_accuracy": (words, (labels >= 0).sum()), "nsp_accuracy": (pairs, len(batch.rows))}


@pytest.mark.parametrize("model_type", PACKING)
def test_packed_padded_and_single_rows_are_one(model_type):
    learner = masked_lm(model_type)
    examples = learner.encode(DOCUMENTS)
    packing, plain = made(model_type, attention=varlen.NAME), made(model_type)
    with torch.no_grad():
        packed = learner.loss_sums(packing, learner.collate(examples, packed=True, epoch=0))["mlm"].item()
        padded = learner.loss_sums(plain, learner.collate(examples, packed=False, epoch=0))["mlm"].item()
        single = sum(
            learner.loss_sums(plain, learner.collate([example], packed=False, epoch=0))["mlm"].item()
            for example in examples
        )
    assert packed == pytest.approx(single, rel=1e-5)
    assert padded == pytest.approx(single, rel=1e-5)


def gradients(learner, model, groups):
    """Gradient of the mean losses of all rows, summed group by group: what a step of the loop computes."""
    batches = [learner.collate(group, packed=False, epoch=0) for group in groups]
    counts = [learner.counts(batch) for batch in batches]
    totals = {term: sum(count[term] for count in counts) for term in counts[0]}
    model.zero_grad()
    for batch in batches:
        sum(loss / totals[term] for term, loss in learner.loss_sums(model, batch).items()).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("nsp", [False, True])
def test_eight_rows_at_once_or_one_by_one_give_the_same_gradient(nsp):
    learner = masked_lm(nsp=nsp)
    auto = "AutoModelForPreTraining" if nsp else "AutoModelForMaskedLM"
    examples = learner.encode(DOCUMENTS)[:8]
    assert len({len(example) for example in examples}) > 1
    exact = gradients(learner, made(auto=auto).double(), [examples])
    for size in (8, 4, 2, 1):
        found = gradients(learner, made(auto=auto), [examples[at : at + size] for at in range(0, 8, size)])
        assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()


def test_a_few_steps_lower_both_losses():
    torch.manual_seed(0)
    learner, model = masked_lm(nsp=True), made(auto="AutoModelForPreTraining")
    batch = learner.collate(learner.encode(DOCUMENTS), packed=False, epoch=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    counts, history = learner.counts(batch), []
    for _ in range(30):
        means = {term: loss / counts[term] for term, loss in learner.loss_sums(model, batch).items()}
        history.append({term: mean.item() for term, mean in means.items()})
        sum(means.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert history[-1]["mlm"] < 0.5 * history[0]["mlm"]
    assert history[-1]["nsp"] < 0.5 * history[0]["nsp"]


def test_positions_of_packed_rows_begin_where_the_model_type_counts_from():
    learner = masked_lm("roberta")
    examples = learner.encode(DOCUMENTS)[:2]
    positions = learner.collate(examples, packed=True).inputs["position_ids"][0].numpy()
    expected = np.concatenate([np.arange(2, 2 + len(example)) for example in examples])
    assert positions.tolist() == expected.tolist()
