"""Hidden words: which, how often, and that nothing but seed, epoch and row decides it."""

import math

import numpy as np
import pytest
import torch

from conftest import SENTENCES, tiny_tokenizer
from lorakit.errors import DataError
from lorakit.types import Example, Row
from masking import DOCUMENTS, SPECIAL, made, masked_lm, word_pieces

SPECIAL_IDS = range(len(SPECIAL))
MASK = SPECIAL.index("[MASK]")


def rows(*texts):
    return [Row({"text": text}, "rows.txt", line) for line, text in enumerate(texts, 1)]


def long_examples(count, length=400):
    """Rows of random ordinary tokens, each a word of its own, without control tokens."""
    draw = np.random.default_rng(0)
    ids = draw.integers(len(SPECIAL), len(word_pieces()), (count, length)).astype(np.int32)
    return [Example(row, np.arange(length, dtype=np.int32), number) for number, row in enumerate(ids)]


def byte_level():
    """Byte-level BPE without start and end tokens."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return tokenizer


def metaspace():
    """A Unigram vocabulary of letters, in which a space is a mark before a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [("<unk>", 0.0), ("<mask>", 0.0), *((letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyz")]
    backend = Tokenizer(models.Unigram(letters, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", mask_token="<mask>", pad_token="<unk>")


def seen(batch, row=0):
    return batch.inputs["input_ids"][row].tolist()


def test_every_token_lies_in_exactly_one_framed_window():
    learner, tokenizer = masked_lm(max_length=20), word_pieces()
    text = DOCUMENTS[0].fields["text"]
    windows = [example.ids.tolist() for example in learner.encode([DOCUMENTS[0]])]
    assert [token for ids in windows for token in ids[1:-1]] == tokenizer(text, add_special_tokens=False).input_ids
    assert {(ids[0], ids[-1]) for ids in windows} == {(tokenizer.cls_token_id, tokenizer.sep_token_id)}
    assert max(map(len, windows)) == 20


def test_a_short_document_stays_whole():
    (example,) = masked_lm().encode(rows("the fox"))
    assert example.ids.tolist() == word_pieces()("the fox").input_ids


def test_typed_control_tokens_stay_text():
    (example,) = masked_lm().encode(rows("the [MASK] [SEP]"))
    assert [token for token in example.ids if token in (MASK, SPECIAL.index("[SEP]"))] == [SPECIAL.index("[SEP]")]
    assert len(example.ids) > 5


def test_a_document_without_words_is_left_out_and_counted():
    learner = masked_lm()
    assert [example.row for example in learner.encode(rows("the fox", "", "ЖЖ"), first=5)] == [5]
    assert learner.notes == ["2 documents without a word that can be hidden: left out"]


@pytest.mark.parametrize("length", [1, 3, 4, 20, 400])
def test_the_share_of_hidden_tokens_is_exact_and_at_least_one(length):
    learner, examples = masked_lm(), long_examples(3, length)
    expected = max(1, round(0.15 * length))
    assert learner.counts(learner.collate(examples, packed=False, epoch=0)) == {"mlm": 3.0 * expected}
    assert learner.learned(examples[0]) == expected


def test_of_the_hidden_tokens_80_in_100_are_masked_and_10_exchanged():
    learner, examples = masked_lm(), long_examples(100)
    batch = learner.collate(examples, packed=True, epoch=0)
    shown = batch.inputs["input_ids"][0, batch.targets["positions_L"]]
    count = len(shown)
    masked = float((shown == MASK).sum())
    kept = float((shown == batch.targets["targets_L"]).sum())
    vocabulary = len(word_pieces()) - len(SPECIAL)
    # A random token may be the one that stood there.
    shares = {masked: 0.8, kept: 0.1 + 0.1 / vocabulary, count - masked - kept: 0.1 - 0.1 / vocabulary}
    for found, share in shares.items():
        assert abs(found / count - share) < 4 * math.sqrt(share * (1 - share) / count)


def test_all_ordinary_tokens_and_no_control_token_come_by_chance():
    learner, examples = masked_lm(), long_examples(200)
    batch = learner.collate(examples, packed=True, epoch=0)
    positions = batch.targets["positions_L"]
    shown = batch.inputs["input_ids"][0, positions]
    by_chance = shown[(shown != MASK) & (shown != batch.targets["targets_L"])]
    assert set(by_chance.tolist()) == set(range(len(SPECIAL), len(word_pieces())))


def test_targets_are_what_stood_at_the_hidden_positions():
    learner = masked_lm()
    examples = learner.encode(DOCUMENTS)
    batch = learner.collate(examples, packed=True, epoch=0)
    whole = np.concatenate([example.ids for example in examples])
    assert batch.targets["targets_L"].tolist() == whole[batch.targets["positions_L"]].tolist()


def test_nothing_but_hidden_positions_is_changed():
    learner = masked_lm()
    examples = learner.encode(DOCUMENTS)
    batch = learner.collate(examples, packed=True, epoch=0)
    whole = np.concatenate([example.ids for example in examples])
    changed = np.flatnonzero(batch.inputs["input_ids"][0].numpy() != whole)
    assert set(changed.tolist()) < set(batch.targets["positions_L"].tolist())


@pytest.mark.parametrize("whole_words", [False, True])
def test_control_tokens_are_never_hidden(whole_words):
    learner = masked_lm(probability=0.9, whole_words=whole_words)
    batch = learner.collate(learner.encode([*DOCUMENTS, *rows("the Ж fox")]), packed=False, epoch=0)
    assert not set(batch.targets["targets_L"].tolist()) & set(SPECIAL_IDS)


def test_whole_words_are_never_split():
    learner, tokenizer = masked_lm(whole_words=True), word_pieces()
    for row in DOCUMENTS:
        (example,) = masked_lm(max_length=500, whole_words=True).encode([row])
        words = tokenizer(row.fields["text"]).word_ids()
        hidden = learner.collate([example], packed=False, epoch=0).targets["positions_L"].tolist()
        chosen = {words[position] for position in hidden}
        assert hidden == [position for position, word in enumerate(words) if word in chosen]


def test_pieces_of_words_are_hidden_apart_without_whole_words():
    learner = masked_lm(max_length=500)
    words = word_pieces()(DOCUMENTS[0].fields["text"]).word_ids()
    (example,) = learner.encode([DOCUMENTS[0]])
    hidden = learner.collate([example], packed=False, epoch=0).targets["positions_L"].tolist()
    chosen = {words[position] for position in hidden}
    assert len(hidden) < sum(word in chosen for word in words)


@pytest.mark.parametrize("kind", [byte_level, metaspace])
def test_words_are_known_without_marks_of_pieces_too(kind):
    """By white space: in a text of letters alone, a word ends where a space stands."""
    tokenizer, text = kind(), "small foxes wanted rivers " * 8
    encoded = tokenizer(text.strip(), add_special_tokens=False, return_offsets_mapping=True)
    words = [text[:end].count(" ") for _, end in encoded.offset_mapping]
    assert len(set(words)) < len(words)
    learner = masked_lm(max_length=500, tokenizer=tokenizer, whole_words=True)
    (example,) = learner.encode(rows(text.strip()))
    hidden = learner.collate([example], packed=False, epoch=0).targets["positions_L"].tolist()
    chosen = {words[position] for position in hidden}
    assert hidden == [position for position, word in enumerate(words) if word in chosen]


def test_whole_words_come_near_the_share_that_was_asked():
    learner = masked_lm(max_length=500, whole_words=True)
    (example,) = learner.encode([DOCUMENTS[0]])
    asked = learner.learned(example)
    counts = [learner.counts(learner.collate([example], packed=False, epoch=epoch))["mlm"] for epoch in range(10)]
    assert asked - 2 <= min(counts)
    assert max(counts) == asked


def test_a_single_long_word_is_hidden_whole():
    learner = masked_lm(whole_words=True)
    (example,) = learner.encode(rows("Alimentum"))
    assert learner.counts(learner.collate([example], packed=False))["mlm"] == len(example.ids) - 2


def test_masks_are_drawn_from_seed_epoch_row_and_part_alone():
    learner = masked_lm(seed=3)
    positions = learner.collate(long_examples(1, 20), packed=False, epoch=2).targets["positions_L"].tolist()
    assert positions == sorted(np.random.default_rng((3, 3, 0, 0)).permutation(20)[:3].tolist())


def test_masks_do_not_depend_on_the_batch():
    examples = masked_lm().encode(DOCUMENTS)
    together = masked_lm().collate(examples, packed=False, epoch=4)
    for place in reversed(range(len(examples))):
        alone = seen(masked_lm().collate([examples[place]], packed=False, epoch=4))
        assert seen(together, place)[: len(alone)] == alone


def test_windows_of_one_document_are_masked_apart():
    text = "the fox " * 40
    whole = masked_lm(max_length=22)
    batch = whole.collate(whole.encode(rows(text)), packed=False, epoch=0)
    assert seen(batch, 0) != seen(batch, 1)


def test_each_epoch_has_masks_of_its_own():
    learner = masked_lm()
    examples = learner.encode(DOCUMENTS)
    assert len({tuple(seen(learner.collate(examples, packed=True, epoch=epoch))) for epoch in (None, 0, 1, 2)}) == 4


def test_evaluation_masks_are_always_the_same():
    learner = masked_lm()
    examples = learner.encode(DOCUMENTS)
    first, second = (learner.collate(examples, packed=False) for _ in range(2))
    assert torch.equal(first.inputs["input_ids"], second.inputs["input_ids"])


def test_pairs_are_framed_as_the_tokenizer_frames_two_texts():
    (example, *_) = masked_lm(max_length=48, nsp=True).encode(rows("the fox. the dog.", "a dog. a fox."))
    tokenizer = word_pieces()
    first, second = (example.ids[example.segments == number].tolist() for number in (0, 1))
    expected = tokenizer(
        tokenizer.decode(first, skip_special_tokens=True), tokenizer.decode(second[:-1]), return_token_type_ids=True
    )
    assert example.ids.tolist() == expected.input_ids
    assert example.segments.tolist() == expected.token_type_ids


def test_a_true_pair_is_labelled_0_and_a_false_one_1():
    learner = masked_lm(nsp=True, max_length=60)
    texts = [f"{'the fox. ' * 3}", f"{'a small dog. ' * 3}"]
    for example in learner.encode(rows(*texts)):
        second = word_pieces().decode(example.ids[example.segments == 1], skip_special_tokens=True)
        own = ("fox", "dog")[example.row]
        assert int(example.labels[0]) == int(own not in second)


def test_pairs_are_counted():
    learner = masked_lm(nsp=True)
    examples = learner.encode(DOCUMENTS)
    true = sum(int(example.labels[0]) == 0 for example in examples)
    assert learner.notes == [f"{true} of {len(examples)} pairs of text follow each other"]


@pytest.mark.parametrize("texts", [(), (SENTENCES[0],), (SENTENCES[0], "")])
def test_next_sentences_need_two_documents(texts):
    with pytest.raises(DataError, match=rf"need two documents at least, and here is {min(1, len(texts))}"):
        masked_lm(nsp=True).encode(rows(*texts))


def test_a_model_type_without_next_sentences_says_so():
    with pytest.raises(DataError, match=r"'roberta' has no output for next sentences.*bert, "):
        masked_lm("roberta", nsp=True)


def test_a_tokenizer_without_a_mask_says_so():
    tokenizer = word_pieces()
    tokenizer.mask_token = None
    with pytest.raises(DataError, match="the tokenizer has no mask token"):
        masked_lm(tokenizer=tokenizer)


def test_a_length_without_room_says_so():
    with pytest.raises(DataError, match="max_length 3 leaves no room for text: the tokenizer adds 2 tokens"):
        masked_lm(max_length=3)


def test_words_of_a_mask_are_those_of_the_fill_mask_pipeline():
    from transformers import pipeline

    model, text = made(), "The quick [MASK] fox jumps."
    (answer,) = masked_lm().predict(model, rows(text), top=3)
    expected = pipeline("fill-mask", model, tokenizer=word_pieces())(text, top_k=3)
    found = answer["masks"][0]["words"]
    assert [word["word"] for word in found] == [word["token_str"].removeprefix("##") for word in expected]
    assert [word["probability"] for word in found] == pytest.approx([word["score"] for word in expected], rel=1e-4)


def test_masks_are_found_by_characters_and_filled():
    text = "나의 [MASK] fox, the [MASK]."
    (answer,) = masked_lm().predict(made(), rows(text), top=2)
    assert [text[mask["start"] : mask["end"]] for mask in answer["masks"]] == ["[MASK]", "[MASK]"]
    one, two = (mask["words"][0]["word"] for mask in answer["masks"])
    assert answer["text"] == f"나의 {one} fox, the {two}."


def test_answers_do_not_depend_on_the_batch_and_keep_their_order():
    learner, model = masked_lm(), made()
    asked = rows("the [MASK]", "The quick brown [MASK] jumps over the [MASK] dog.", "[MASK]")
    together = learner.predict(model, asked)
    for row, answer in zip(asked, together, strict=True):
        (alone,) = learner.predict(model, [row], tokens=1)
        assert alone["text"] == answer["text"]
        assert [mask["start"] for mask in alone["masks"]] == [mask["start"] for mask in answer["masks"]]


def test_only_the_written_mask_is_a_control_token():
    learner, model, asked = masked_lm(), made(), rows("the [SEP] [MASK]")
    with_letters = word_pieces()("the", add_special_tokens=False).input_ids
    lengths = []
    model.register_forward_pre_hook(
        lambda _, __, inputs: lengths.append(inputs["input_ids"][0].tolist()), with_kwargs=True
    )
    learner.predict(model, asked)
    assert lengths[0].count(SPECIAL.index("[SEP]")) == 1
    assert lengths[0].count(MASK) == 1
    assert lengths[0][1] == with_letters[0]


def test_the_spelling_with_brackets_works_for_other_mask_tokens():
    tokenizer = word_pieces()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    model = made()
    model.resize_token_embeddings(len(tokenizer))
    learner = masked_lm(tokenizer=tokenizer)
    bracketed, own = learner.predict(model, rows("the [MASK] fox", "the <mask> fox"))
    assert bracketed["text"] == own["text"]
    assert bracketed["masks"][0]["end"] == len("the [MASK]")


def test_a_text_without_a_mask_says_how_to_write_one():
    with pytest.raises(DataError, match=r"rows.txt line 1: no word is hidden in 'the fox'. Write \[MASK\]"):
        masked_lm().predict(made(), rows("the fox"))


def test_a_text_too_long_for_the_model_is_named():
    with pytest.raises(DataError, match=r"rows.txt line 2: .* tokens are more than the 48"):
        masked_lm().predict(made(), rows("the [MASK]", "the [MASK] " * 40))


def test_next_sentences_are_answered_as_transformers_does():
    from transformers import AutoModelForPreTraining

    model = made(auto=AutoModelForPreTraining.__name__)
    one, two = SENTENCES[0], SENTENCES[3]
    pair = Row({"text": one, "text_pair": two}, "rows.csv", 1)
    (answer,) = masked_lm(nsp=True, max_length=64).predict(model, [pair])
    with torch.no_grad():
        scores = model(
            **word_pieces()(one, two, return_tensors="pt", return_token_type_ids=True)
        ).seq_relationship_logits[0]
    assert answer["probability"] == pytest.approx(torch.softmax(scores, 0)[0].item(), rel=1e-5)
    assert answer["is_next"] == bool(scores[0] > scores[1])


def test_a_pair_asked_of_a_model_of_words_alone_says_so():
    pair = Row({"text": "the fox", "text_pair": "the dog"}, "rows.csv", 4)
    with pytest.raises(DataError, match=r"rows.csv line 4: this model was not trained to tell"):
        masked_lm().predict(made(), [pair])
