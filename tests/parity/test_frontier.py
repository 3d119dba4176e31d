"""Frozen blocks computed once give the weights that blocks computed in every epoch give, and are computed once."""

import errno
import json
import os
import signal

import numpy as np
import pytest
import torch
from transformers import AutoModel

from conftest import save_checkpoint, tiny_gpt2
from encoders import encoder_folder, framing
from every_objective import ROWS
from lorakit.errors import Interrupted
from lorakit.fast.frontier import Frontier, Stretch, examine
from lorakit.fast.states import States, lay_out
from lorakit.training.events import NoteEvent, StepEvent
from lorakit.types import Batch
from model_types import tiny_model
from runs import Listener, random_examples, train, weights
from writers import bart_tokenizer, tiny_writer, unigram_tokenizer

LABELLED = [
    {"text": f"word {number} " * (1 + number % 5), "label": "even" if number % 2 == 0 else "odd"}
    for number in range(16)
]
ANSWERED = [{"prompt": f"number {number}", "completion": f"it is {number} " * (1 + number % 4)} for number in range(16)]


def table(folder, rows):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def bert_with_dropout(folder):
    """A BERT whose checkpoint drops a tenth of everything, also of its embeddings."""
    drops = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    return encoder_folder(folder, "AutoModel", num_hidden_layers=4, **drops)


def deberta(folder):
    """A type that takes buckets, padded."""
    model = tiny_model("deberta-v2", AutoModel, "eager", vocab_size=350, pad_token_id=1)
    return save_checkpoint(folder, model, framing())


def gpt(folder):
    return save_checkpoint(folder, tiny_gpt2(n_layer=4))


def t5(folder, model_type="t5", **changes):
    """Encoder and decoder of three blocks, with the dropout of its authors."""
    tokenizer = unigram_tokenizer()
    shape = {"vocab_size": len(tokenizer), "num_layers": 3, "num_decoder_layers": 3, "initializer_factor": 1.0}
    return save_checkpoint(folder, tiny_writer(model_type, **shape, dropout_rate=0.1, **changes), tokenizer)


def bart(folder):
    tokenizer = bart_tokenizer()
    return save_checkpoint(
        folder, tiny_writer("bart", vocab_size=len(tokenizer), decoder_layers=3, dropout=0.1), tokenizer
    )


TRANSLATED = ROWS["translations"] * 2
LAST = {"method__name": "lora", "method__last_blocks": 1}
CASES = {
    "half of a packed GPT": (gpt, ANSWERED, {"method__name": "freeze"}),
    "half of a packed classifier": (bert_with_dropout, LABELLED, {"method__name": "freeze", "train__dropout": 0.0}),
    "all of a packed classifier": (bert_with_dropout, LABELLED, {"method__name": "head"}),
    "all of a padded classifier": (deberta, LABELLED, {"method__name": "head"}),
    "below the pairs of the last block": (
        gpt,
        ANSWERED,
        {"method__name": "lora", "method__targets": ["3.attn.c_attn", "3.mlp.c_fc"]},
    ),
    "below the last block of a packed T5": (t5, TRANSLATED, LAST),
    "below the last block of a padded T5": (t5, TRANSLATED, {**LAST, "speed__varlen": False}),
    "all of a packed T5": (t5, TRANSLATED, {"method__name": "head"}),
    "the encoder of a T5": (t5, TRANSLATED, {"method__name": "freeze", "method__blocks": "encoder"}),
    "half of the encoder of a T5": (
        t5,
        TRANSLATED,
        {"method__name": "freeze", "method__blocks": 2, "train__dropout": 0.0},
    ),
    "all of the blocks that a T5 reads labels with": (t5, LABELLED, {"method__name": "head"}),
    "below the last block of a BART": (bart, TRANSLATED, LAST),
    # Transformers 5.17 draws a random number for each block of a BART that is computed, also where none is left out.
    "the encoder of a BART and a block": (
        bart,
        TRANSLATED,
        {"method__name": "freeze", "method__blocks": 3, "train__dropout": 0.0},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_at_the_end_are_those_without_it(tmp_path, case):
    make, rows, settings = CASES[case]
    common = {"train__epochs": 3, "data__eval": 0.25, "optim__learning_rate": 1e-2, **settings}
    model, data = make(tmp_path / "model"), table(tmp_path, rows)
    found = {}
    for taken in (True, False):
        result = train(tmp_path / f"run-{taken}", model, data, speed__frontier=taken, **common)
        found[taken] = (weights(result.folder), result.state, result.folder)
    speed = [json.loads((folder / "manifest.json").read_text())["speed"] for _, _, folder in found.values()]
    assert ["frontier" in paths for paths in speed] == [True, False]
    assert found[True][0].keys() == found[False][0].keys()
    # What is added to every key alike moves no attention weight: its gradient is rounding, which Adam makes large.
    for name, tensor in found[True][0].items():
        assert name.endswith("k_proj.bias") or torch.allclose(tensor, found[False][0][name], atol=2e-5), name
    assert found[True][1].best_loss == pytest.approx(found[False][1].best_loss, rel=1e-5)


def test_frozen_blocks_run_once_for_each_row(tmp_path, monkeypatch):
    kept = []
    init = Frontier.__init__
    monkeypatch.setattr(Frontier, "__init__", lambda self, *given: (kept.append(self), init(self, *given))[1])
    train(tmp_path / "run", gpt(tmp_path / "model"), table(tmp_path, ANSWERED), method__name="freeze", train__epochs=4)
    (frontier,) = kept
    # 14 rows to learn and 2 to evaluate; a batch that holds the row of the proof holds others too.
    assert frontier.computed <= 16 + 1
    assert frontier.replayed >= 3 * 14


def test_states_are_gone_when_the_run_is_done(tmp_path):
    result = train(
        tmp_path / "run", gpt(tmp_path / "model"), table(tmp_path, ANSWERED), method__name="freeze", train__epochs=2
    )
    assert not (result.folder / "frontier").exists()


@pytest.mark.parametrize("case", ["half of a packed GPT", "below the last block of a packed T5"])
def test_a_resumed_run_reads_the_states_of_the_one_before(tmp_path, case):
    make, rows, settings = CASES[case]
    model, data = make(tmp_path / "model"), table(tmp_path, rows)
    common = {**settings, "train__epochs": 3, "train__evaluate_every": 3}
    whole = train(tmp_path / "whole", model, data, **common)

    def stop(event):
        if isinstance(event, StepEvent) and event.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "cut", model, data, reporters=[Listener(stop)], **common)
    filled = np.load(tmp_path / "cut" / "frontier" / "whole.npy")
    assert filled.all()
    listener = Listener()
    resumed = train(tmp_path / "cut", resume=True, reporters=[listener])
    assert all(torch.equal(tensor, weights(whole.folder)[name]) for name, tensor in weights(resumed.folder).items())


def opened(folder, block, lengths):
    """A frontier behind one block, of rows of these lengths."""
    known, reason = examine([Stretch("blocks", (block,), lengths, 1)], lambda: block(torch.ones(1, 3, 4)), block)
    assert reason == ""
    layouts = [each.layout for each in known]
    lay_out(folder, layouts)
    return Frontier(known, random_examples(lengths), States(folder, layouts))


def passed(frontier, block, lengths):
    """Send each row through the frozen block in a batch of its own."""
    for key, length in enumerate(lengths):
        with frontier.around(Batch(inputs={}, targets={}, lengths=(length,), rows=(0,), tokens=length, keys=(key,))):
            block(torch.ones(1, length, 4))


@pytest.mark.parametrize(("lengths", "computed"), [((5, 7), 0), ((5, 8), 2)], ids=["the same rows", "other rows"])
def test_states_are_taken_up_for_the_same_rows_alone(tmp_path, lengths, computed):
    block = torch.nn.Identity()
    first = opened(tmp_path, block, (5, 7))
    passed(first, block, (5, 7))
    first.flush()
    again = opened(tmp_path, block, lengths)
    passed(again, block, lengths)
    assert again.computed == computed


def test_states_that_were_not_flushed_are_not_taken_up(tmp_path):
    block = torch.nn.Identity()
    passed(opened(tmp_path, block, (5, 7)), block, (5, 7))
    again = opened(tmp_path, block, (5, 7))
    passed(again, block, (5, 7))
    assert again.computed == 2


def said(tmp_path, model, rows, **settings):
    listener = Listener()
    train(tmp_path / "run", model, table(tmp_path, rows), reporters=[listener], **settings)
    return [event.text for event in listener.events if isinstance(event, NoteEvent) and " frozen block" in event.text]


SIDES = {
    "the encoder and two blocks": (t5, LAST, "the 5 frozen blocks are computed once"),
    "the encoder alone": (t5, {"method__name": "freeze"}, "the 3 frozen blocks are computed once"),
    "both sides": (bart, {"method__name": "head"}, "the 5 frozen blocks are computed once"),
    "half of the encoder": (
        t5,
        {"method__name": "freeze", "method__blocks": 1, "train__dropout": 0.0},
        "the frozen block is computed once",
    ),
    "the decoder alone": (t5, {"method__name": "freeze", "method__blocks": "decoder"}, None),
}


@pytest.mark.parametrize("case", SIDES)
def test_of_an_encoder_decoder_both_sides_count(tmp_path, case):
    make, settings, expected = SIDES[case]
    lines = said(tmp_path, make(tmp_path / "model"), TRANSLATED, train__epochs=2, **settings)
    assert [line.partition(":")[0] for line in lines] == ([expected] if expected else [])


def test_where_the_decoder_drops_out_below_its_frozen_blocks_the_encoder_is_computed_once_all_the_same(tmp_path):
    """A T5 has one dropout behind its embeddings and behind its last norm, which learns."""
    model = t5(tmp_path / "model")
    (line,) = said(tmp_path, model, TRANSLATED, method__name="freeze", method__blocks=4, train__epochs=2)
    assert line.startswith("the 3 frozen blocks are computed once")
    assert line.endswith("; the frozen block is computed in every epoch: there is dropout in the frozen part")


def test_blocks_left_out_at_random_are_noticed(tmp_path):
    tokenizer = bart_tokenizer()
    writer = tiny_writer("bart", vocab_size=len(tokenizer), encoder_layerdrop=0.1)
    model = save_checkpoint(tmp_path / "model", writer, tokenizer)
    (line,) = said(tmp_path, model, TRANSLATED, method__name="head", train__epochs=2)
    assert "layerdrop" in line


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    (line,) = said(tmp_path, gpt(tmp_path / "model"), ANSWERED, method__name="freeze", train__epochs=2)
    assert "cannot hold it (No space left on device)" in line
    assert not (tmp_path / "run" / "frontier").exists()


REASONS = {
    "speed.frontier is off": {"speed__frontier": False, "train__epochs": 2},
    "no row is read twice": {"train__epochs": 1},
    "would take": {"speed__cache_gb": 1e-9, "train__epochs": 2},
    "computes blocks twice": {"train__gradient_checkpointing": True, "train__epochs": 2},
}


@pytest.mark.parametrize("reason", REASONS)
def test_where_it_is_not_taken_a_line_says_why(tmp_path, reason):
    lines = said(tmp_path, gpt(tmp_path / "model"), ANSWERED, method__name="freeze", **REASONS[reason])
    assert len(lines) == 1
    assert reason in lines[0]


def test_dropout_in_the_frozen_part_is_noticed(tmp_path):
    model = save_checkpoint(tmp_path / "model", tiny_gpt2(n_layer=4, resid_pdrop=0.1, embd_pdrop=0.1))
    lines = said(tmp_path, model, ANSWERED, method__name="freeze", train__epochs=2, train__dropout=0.2)
    assert len(lines) == 1
    assert "there is dropout in the frozen part" in lines[0]


def test_dropout_of_the_checkpoint_is_silent_in_frozen_embeddings(tmp_path):
    model = save_checkpoint(tmp_path / "model", tiny_gpt2(n_layer=4, resid_pdrop=0.1, embd_pdrop=0.1))
    (line,) = said(tmp_path, model, ANSWERED, method__name="freeze", train__epochs=2)
    assert line.startswith("the 2 frozen blocks are computed once")


def test_hidden_words_are_others_in_each_epoch(tmp_path):
    model = encoder_folder(tmp_path / "model", "AutoModelForMaskedLM")
    texts = [{"text": f"some words and number {number}"} for number in range(16)]
    lines = said(tmp_path, model, texts, objective__name="masked_lm", method__name="freeze", train__epochs=2)
    assert "masked_lm hides other words in each epoch" in lines[0]


def test_full_training_says_nothing_of_it(tmp_path):
    assert said(tmp_path, gpt(tmp_path / "model"), ANSWERED, method__name="full", train__epochs=2) == []


def test_a_type_whose_blocks_cannot_be_told_is_left_alone():
    from types import SimpleNamespace

    from lorakit.families import Family
    from lorakit.workflows.prefix import _frozen

    family = Family("other", "decoder", (), (), None, packs=False, listed=False)
    rows = SimpleNamespace(checkpoint=SimpleNamespace(family=family))
    assert _frozen(torch.nn.Linear(2, 2), rows, []) == []
