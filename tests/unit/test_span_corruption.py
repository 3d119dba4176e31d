"""Spans cut out of documents: nothing is lost, the shares are those asked for, and draws depend on the row alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import SENTENCES
from lorakit import families
from lorakit.errors import DataError
from lorakit.objectives.settings import SpanCorruptionSettings
from lorakit.objectives.span_corruption import SpanCorruption, sentinels_of, span_lengths
from lorakit.types import Example, Job, PromptStyle, Row
from writers import TYPES, bart_tokenizer, tiny_writer, unigram_tokenizer


def objective_for(tokenizer, config=None, **changes) -> SpanCorruption:
    density, mean = changes.pop("density", 0.15), changes.pop("mean", 3.0)
    settings = {
        "settings": SpanCorruptionSettings(noise_density=density, mean_span=mean),
        "tokenizer": tokenizer,
        "family": families.of("t5"),
        "config": {"model_type": "t5", "decoder_start_token_id": 0} if config is None else config,
        "format": "text",
        "style": PromptStyle(),
        "max_length": 64,
        "seed": 5,
    }
    return SpanCorruption.of(Job(**{**settings, **changes}))


def documents(*texts: str) -> list[Row]:
    return [Row({"text": text}, "rows.jsonl", number) for number, text in enumerate(texts, 1)]


def piece(length: int, row: int = 0) -> Example:
    return Example(np.arange(1000, 1000 + length, dtype=np.int32), np.zeros(0, dtype=np.int32), row)


def restored(source: np.ndarray, target: np.ndarray, sentinels: np.ndarray) -> list[int]:
    """Put each span of the target where its sentinel stands in the source."""
    spans: dict[int, list[int]] = {}
    for token in target.tolist():
        if token in sentinels:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    return [number for token in source.tolist() for number in spans.get(token, [token])]


@pytest.mark.parametrize("length", [2, 3, 7, 30, 200, 900])
@pytest.mark.parametrize("density", [0.01, 0.15, 0.5, 0.95])
@pytest.mark.parametrize("mean", [1.0, 3.0])
def test_source_and_target_together_are_the_text(length, density, mean):
    objective = objective_for(unigram_tokenizer(), density=density, mean=mean)
    example = piece(length)
    source, target = objective.corrupted(example, 0)
    assert restored(source, target, objective.sentinels) == example.ids.tolist()
    assert 0 < len(target) - int(np.isin(target, objective.sentinels).sum()) < length


def test_sentinels_come_in_order_from_the_first_on():
    objective = objective_for(unigram_tokenizer())
    source, target = objective.corrupted(piece(100), 0)
    for ids in (source, target):
        used = ids[np.isin(ids, objective.sentinels)].tolist()
        assert used == objective.sentinels[: len(used)].tolist()
        assert len(used) == 5


def test_a_source_begins_with_text_and_a_target_with_a_sentinel():
    objective = objective_for(unigram_tokenizer())
    for row in range(20):
        source, target = objective.corrupted(piece(40, row), 0)
        assert source[0] == 1000
        assert target[0] == objective.sentinels[0]


def test_the_share_of_noise_and_the_mean_span_are_those_of_the_settings():
    objective = objective_for(unigram_tokenizer(), density=0.3, mean=2.5)
    lengths = np.random.default_rng(0).integers(20, 60, size=200)
    noise = spans = 0
    for row, length in enumerate(lengths):
        _, target = objective.corrupted(piece(length, row), 0)
        named = int(np.isin(target, objective.sentinels).sum())
        noise, spans = noise + len(target) - named, spans + named
    assert noise / lengths.sum() == pytest.approx(0.3, abs=0.01)
    assert noise / spans == pytest.approx(2.5, abs=0.15)


def test_every_place_is_cut_out_at_times_but_the_first():
    objective = objective_for(unigram_tokenizer(), density=0.3)
    cut = np.zeros(30)
    for row in range(400):
        source, _ = objective.corrupted(piece(30, row), 0)
        cut[np.setdiff1d(np.arange(1000, 1030), source) - 1000] += 1
    assert cut[0] == 0
    assert (cut[1:] > 0).all()


def test_more_spans_than_sentinels_become_fewer_and_longer_ones():
    objective = objective_for(unigram_tokenizer(sentinels=2), density=0.5, mean=1.0)
    example = piece(40)
    source, target = objective.corrupted(example, 0)
    assert int(np.isin(source, objective.sentinels).sum()) == 2
    assert restored(source, target, objective.sentinels) == example.ids.tolist()


@pytest.mark.parametrize("make", [unigram_tokenizer, bart_tokenizer])
def test_spans_depend_on_seed_epoch_row_and_part_alone(make):
    objective = objective_for(make(), density=0.3)
    examples = [piece(30, row) for row in range(4)]
    together = objective.collate(examples, False, epoch=2)
    alone = objective.collate(examples[2:3], False, epoch=2)
    width = int(alone.inputs["attention_mask"].sum())
    assert together.inputs["input_ids"][2, :width].tolist() == alone.inputs["input_ids"][0].tolist()

    def source(example, epoch, seed=5):
        return objective_for(make(), density=0.3, seed=seed).corrupted(example, epoch)[0].tolist()

    other_part = Example(examples[0].ids, examples[0].labels, 0, part=1)
    other_row = Example(examples[0].ids, examples[0].labels, 7)
    first = source(examples[0], 0)
    assert source(examples[0], 0) == first
    others = [
        source(examples[0], None),
        source(examples[0], 1),
        source(examples[0], 0, seed=6),
        source(other_part, 0),
        source(other_row, 0),
    ]
    assert all(other != first for other in others)
    assert source(examples[0], None) == source(examples[0], None)


@pytest.mark.parametrize("make", [unigram_tokenizer, bart_tokenizer])
@pytest.mark.parametrize("max_length", [6, 16, 33])
def test_pieces_hold_the_whole_document_and_fit(make, max_length):
    tokenizer = make()
    objective = objective_for(tokenizer, density=0.5, mean=1.0, max_length=max_length)
    text = " ".join(SENTENCES)
    examples = objective.encode(documents(text), first=3)
    whole = np.concatenate([example.ids for example in examples])
    assert whole.tolist() == tokenizer(text, add_special_tokens=False).input_ids
    assert [(example.row, example.part) for example in examples] == [(3, part) for part in range(len(examples))]
    batch = objective.collate(examples, False, epoch=0)
    assert max(batch.inputs["input_ids"].shape[1], batch.inputs["decoder_input_ids"].shape[1]) <= max_length


@pytest.mark.parametrize("make", [unigram_tokenizer, bart_tokenizer])
def test_source_and_target_end_with_eos(make):
    tokenizer = make()
    objective = objective_for(tokenizer)
    batch = objective.collate(objective.encode(documents(SENTENCES[0])), False)
    assert batch.inputs["input_ids"][0, -1] == tokenizer.eos_token_id
    assert batch.targets["targets_L"][-1] == tokenizer.eos_token_id


def test_what_is_learned_is_the_target():
    objective = objective_for(unigram_tokenizer())
    (example,) = objective.encode(documents(SENTENCES[1]))
    assert objective.counts(objective.collate([example], False)) == {"tokens": objective.learned(example)}


def test_a_document_of_one_token_is_left_out_and_counted():
    tokenizer = bart_tokenizer()
    objective = objective_for(tokenizer)
    assert objective.encode(documents("a")) == []
    assert objective.notes == ["1 document of a single token: left out, as nothing can be cut out"]


def test_sentinels_are_found_as_pieces_of_the_vocabulary():
    class Tokenizer:
        def get_vocab(self):
            return {"a": 0, "▁<extra_id_1>": 8, "▁<extra_id_0>": 9, "<extra_id_7>": 3}

    assert sentinels_of(Tokenizer()).tolist() == [9, 8]


def test_sentinels_that_the_model_has_no_row_for_are_no_use():
    assert len(sentinels_of(unigram_tokenizer(sentinels=5), 2)) == 0


def test_infilling_writes_the_whole_text_and_hides_the_share_asked_for():
    objective = objective_for(bart_tokenizer(), density=0.3)
    hidden = 0
    for row in range(300):
        example = piece(40, row)
        source, target = objective.corrupted(example, 0)
        left = source[source != objective.mask_id]
        assert target.tolist() == example.ids.tolist()
        assert left.tolist() == sorted(set(left.tolist()) & set(example.ids.tolist()))
        hidden += 40 - len(left)
    assert hidden == 300 * 12


def test_infilled_spans_are_poisson_with_empty_ones_among_them():
    draw = np.random.default_rng(0)
    lengths = np.concatenate([span_lengths(60, 3.0, draw) for _ in range(400)])
    assert lengths.mean() == pytest.approx(3.0, abs=0.15)
    # The last span of each draw is cut to what is left.
    assert (lengths == 0).mean() == pytest.approx(np.exp(-3), abs=0.015)


def test_a_tokenizer_with_neither_sentinels_nor_mask_is_refused():
    with pytest.raises(DataError, match="neither"):
        objective_for(bart_tokenizer(mask=False))


def test_a_length_without_room_is_refused():
    objective = objective_for(unigram_tokenizer(), max_length=3)
    with pytest.raises(DataError, match="leaves no room"):
        objective.encode(documents(SENTENCES[0]))


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_eight_rows_weigh_the_same_in_every_cut(model_type):
    model = tiny_writer(model_type, vocab_size=400).double()
    tokenizer = unigram_tokenizer() if model_type == "t5" else bart_tokenizer()
    objective = objective_for(tokenizer, model.config.to_dict())
    examples = objective.encode(documents(*SENTENCES, *SENTENCES[:3]))

    def gradient(size: int) -> torch.Tensor:
        model.zero_grad()
        cuts = [objective.collate(examples[at : at + size], False, 1) for at in range(0, len(examples), size)]
        count = sum(objective.counts(batch)["tokens"] for batch in cuts)
        for batch in cuts:
            (objective.loss_sums(model, batch)["tokens"] / count).backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])

    whole = gradient(8)
    for size in (1, 2, 4):
        assert torch.allclose(gradient(size), whole, rtol=1e-5, atol=1e-6 * float(whole.abs().max()))


def test_every_type_of_the_table_has_a_loss():
    for model_type in TYPES:
        model = tiny_writer(model_type, vocab_size=400)
        objective = objective_for(unigram_tokenizer(), model.config.to_dict())
        batch = objective.collate(objective.encode(documents(*SENTENCES)), False, 0)
        assert torch.isfinite(objective.loss_sums(model, batch)["tokens"])
