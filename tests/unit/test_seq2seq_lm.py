"""Text to text: what is read and written, and a loss that equals transformers' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import tiny_tokenizer
from lorakit import families
from lorakit.errors import CheckpointError, DataError
from lorakit.objectives.seq2seq_lm import Seq2SeqLM
from lorakit.objectives.settings import Seq2SeqLMSettings
from lorakit.types import Example, Job, PromptStyle, Row
from writers import TYPES, bart_tokenizer, tiny_writer, unigram_tokenizer

ROWS = [
    {"source": "the quick brown fox", "target": "a lazy dog"},
    {"source": "once upon a time there was a small model", "target": "speak"},
    {"source": "two", "target": "four. once upon a time 한국어"},
]


def objective_for(tokenizer, config=None, **changes) -> Seq2SeqLM:
    settings = {
        "settings": Seq2SeqLMSettings(prefix=changes.pop("prefix", "")),
        "tokenizer": tokenizer,
        "family": families.of("gpt2"),
        "config": {"model_type": "t5", "decoder_start_token_id": 0} if config is None else config,
        "format": "source_target",
        "style": PromptStyle(),
        "max_length": 64,
    }
    return Seq2SeqLM.of(Job(**{**settings, **changes}))


def rows_of(*fields) -> list[Row]:
    return [Row(each, "rows.jsonl", number) for number, each in enumerate(fields, 1)]


def random_examples(model, count: int, seed: int = 0) -> list[Example]:
    """Random ids that are no padding, of unequal lengths, each target with EOS at its end."""
    drawn = np.random.default_rng(seed)
    end = int(model.config.eos_token_id)
    examples = []
    for row in range(count):
        source = drawn.integers(10, 110, size=drawn.integers(2, 9)).astype(np.int32)
        target = np.append(drawn.integers(10, 110, size=drawn.integers(1, 7)), end).astype(np.int32)
        examples.append(Example(source, target, row, target=target))
    return examples


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("model_type", TYPES)
def test_the_loss_is_that_of_transformers(model_type, fast):
    model = tiny_writer(model_type).double()
    objective = objective_for(unigram_tokenizer(), model.config.to_dict(), label_logits_only=fast)
    examples = random_examples(model, 3)
    batch = objective.collate(examples, packed=False)
    labels = torch.full((3, max(len(example.target) for example in examples)), -100)
    for row, example in enumerate(examples):
        labels[row, : len(example.target)] = torch.from_numpy(example.target.astype(np.int64))
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = model(**inputs, labels=labels).loss
        found = objective.loss_sums(model, batch)["tokens"] / objective.counts(batch)["tokens"]
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("model_type", TYPES)
def test_eight_rows_weigh_the_same_in_every_cut(model_type):
    model = tiny_writer(model_type).double()
    objective = objective_for(unigram_tokenizer(), model.config.to_dict())
    examples = random_examples(model, 8)

    def gradient(size: int) -> torch.Tensor:
        model.zero_grad()
        batches = [objective.collate(examples[start : start + size], False) for start in range(0, 8, size)]
        count = sum(objective.counts(batch)["tokens"] for batch in batches)
        for batch in batches:
            (objective.loss_sums(model, batch)["tokens"] / count).backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])

    whole = gradient(8)
    for size in (1, 2, 4):
        assert torch.allclose(gradient(size), whole, rtol=1e-5, atol=1e-6 * float(whole.abs().max()))


def test_source_and_target_end_with_eos_and_eos_is_learned():
    objective = objective_for(unigram_tokenizer())
    (example, *_) = objective.encode(rows_of(*ROWS))
    batch = objective.collate([example], False)
    assert example.ids[-1] == example.target[-1] == batch.targets["targets_L"][-1] == 1
    assert objective.counts(batch) == {"tokens": len(example.target)}


def test_eos_is_learned_also_where_it_is_the_padding():
    tokenizer = unigram_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    objective = objective_for(tokenizer)
    batch = objective.collate(objective.encode(rows_of(*ROWS)), False)
    assert int((batch.targets["targets_L"] == 1).sum()) == len(ROWS)


def test_bart_frames_both_texts_as_its_tokenizer_does():
    tokenizer = bart_tokenizer()
    (example,) = objective_for(tokenizer).encode(rows_of(ROWS[0]))
    assert example.ids.tolist() == tokenizer(ROWS[0]["source"]).input_ids
    assert example.target.tolist() == tokenizer(text_target=ROWS[0]["target"]).input_ids


def test_a_tokenizer_that_frames_nothing_gets_eos_behind_both_texts():
    tokenizer = tiny_tokenizer()
    (example,) = objective_for(tokenizer).encode(rows_of(ROWS[0]))
    assert example.ids.tolist() == [*tokenizer(ROWS[0]["source"]).input_ids, tokenizer.eos_token_id]
    assert example.target.tolist() == [*tokenizer(ROWS[0]["target"]).input_ids, tokenizer.eos_token_id]


def test_the_prefix_stands_before_every_source():
    tokenizer = unigram_tokenizer()
    (example,) = objective_for(tokenizer, prefix="answer: ").encode(rows_of(ROWS[0]))
    assert example.ids.tolist() == tokenizer("answer: " + ROWS[0]["source"]).input_ids


@pytest.mark.parametrize("make", [unigram_tokenizer, bart_tokenizer])
def test_typed_control_tokens_stay_text(make):
    tokenizer = make()
    typed = "a </s> <pad> <extra_id_0> <mask> b"
    (example,) = objective_for(tokenizer).encode(rows_of({"source": typed, "target": typed}))
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for ids in (example.ids, example.target):
        inner = ids[ids != tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else ids
        assert [token for token in inner.tolist() if token in control] == [tokenizer.eos_token_id]


def test_the_decoder_reads_its_start_and_then_the_target():
    objective = objective_for(unigram_tokenizer(), {"model_type": "t5", "decoder_start_token_id": 5})
    examples = objective.encode(rows_of(*ROWS))
    read_BU = objective.collate(examples, False).inputs["decoder_input_ids"]
    for read_U, example in zip(read_BU, examples, strict=True):
        assert read_U[: len(example.target)].tolist() == [5, *example.target[:-1]]


def test_a_config_that_names_no_start_is_refused():
    objective = objective_for(unigram_tokenizer(), {"model_type": "t5"})
    with pytest.raises(CheckpointError, match="decoder_start_token_id"):
        objective.collate(objective.encode(rows_of(*ROWS)), False)


def test_mbart_learns_to_write_the_language_its_checkpoint_begins_with():
    from transformers import MBartTokenizer

    tokenizer = MBartTokenizer()
    romanian = tokenizer.convert_tokens_to_ids("ro_RO")
    objective = objective_for(tokenizer, {"model_type": "mbart", "decoder_start_token_id": romanian})
    examples = objective.encode(rows_of(*ROWS))
    batch = objective.collate(examples, False)
    for read_U, example in zip(batch.inputs["decoder_input_ids"], examples, strict=True):
        assert example.ids[-1] == tokenizer.convert_tokens_to_ids("en_XX")
        assert example.target[-2:].tolist() == [tokenizer.eos_token_id, romanian]
        assert read_U[0] == romanian


def test_prompts_and_completions_are_sources_and_targets():
    objective = objective_for(unigram_tokenizer(), format="prompt_completion")
    renamed = {"prompt": ROWS[0]["source"], "completion": ROWS[0]["target"]}
    (found,) = objective.encode(rows_of(renamed))
    (expected,) = objective.encode(rows_of(ROWS[0]))
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.target.tolist() == expected.target.tolist()


def test_questions_are_read_as_text_and_unanswered_ones_counted():
    tokenizer = unigram_tokenizer()
    asked = {"question": "what is two?", "context": "two and two", "answers": [{"text": "two", "start": 0}]}
    objective = objective_for(tokenizer, format="extractive")
    examples = objective.encode(rows_of({**asked, "answers": []}, asked), first=10)
    assert [example.row for example in examples] == [11]
    assert examples[0].ids.tolist() == tokenizer("question: what is two? context: two and two").input_ids
    assert objective.notes == ["1 row without an answer: left out, as there is nothing to write"]


LONG = {"source": "one two three four five six seven", "target": "four"}


def test_long_rows_are_an_error_that_names_them():
    objective = objective_for(unigram_tokenizer(), max_length=8)
    with pytest.raises(DataError, match=r"rows\.jsonl line 1 \(source \d+ tokens, target \d+\)"):
        objective.encode(rows_of(LONG))


def test_long_rows_are_left_out_and_counted():
    objective = objective_for(unigram_tokenizer(), max_length=8, too_long="drop")
    assert objective.encode(rows_of(LONG)) == []
    assert objective.notes == ["1 row longer than 8 tokens: left out"]


@pytest.mark.parametrize("policy", ["truncate", "truncate_prompt"])
def test_a_long_source_is_cut_at_its_end_and_keeps_eos(policy):
    tokenizer = unigram_tokenizer()
    objective = objective_for(tokenizer, max_length=8, too_long=policy)
    (example,) = objective.encode(rows_of(LONG))
    assert example.ids.tolist() == [*tokenizer(LONG["source"]).input_ids[:7], 1]
    assert example.target.tolist() == tokenizer(LONG["target"]).input_ids
    assert objective.notes == ["1 row longer than 8 tokens: cut at the end of the source"]


def test_a_target_is_never_cut():
    objective = objective_for(unigram_tokenizer(), max_length=8, too_long="truncate")
    with pytest.raises(DataError, match="a target is never cut"):
        objective.encode(rows_of({"source": LONG["target"], "target": LONG["source"]}))
