"""Framed text: every token knows its characters, and nothing that people typed is a control token."""

from __future__ import annotations

import json
import unicodedata

import pytest

from conftest import SENTENCES
from lorakit.data.encoding import encodings
from lorakit.data.framing import FramedEncoder, cut, padding_id
from lorakit.errors import DataError

TEXT = "The fox 한국 café </s> [SEP] <s> [CLS] <|endoftext|>"


def pieces(model, trainer, tokenize):
    """Return vocabulary and merges of a backend trained on the five sentences."""
    from tokenizers import Tokenizer

    backend = Tokenizer(model)
    backend.pre_tokenizer = tokenize
    backend.train_from_iterator(SENTENCES, trainer)
    return json.loads(backend.to_str())["model"]


def byte_level(*special: str):
    from tokenizers import models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    found = pieces(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False))
    return {"vocab": found["vocab"], "merges": [tuple(merge) for merge in found["merges"]]}


def unigram(unknown: str, *special: str):
    from tokenizers import models, pre_tokenizers, trainers

    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    return [tuple(piece) for piece in pieces(models.Unigram(), trainer, pre_tokenizers.Metaspace())["vocab"]]


def word_piece():
    from tokenizers import models, pre_tokenizers, trainers

    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
    )
    return pieces(models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer())["vocab"]


def llama():
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import LlamaTokenizer

    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    found = pieces(models.BPE(byte_fallback=True, unk_token="<unk>"), trainer, pre_tokenizers.Metaspace())
    return LlamaTokenizer(vocab=found["vocab"], merges=[tuple(merge) for merge in found["merges"]])


@pytest.fixture(scope="module")
def tokenizers():
    """A tokenizer of each kind, by model type."""
    import transformers as hub

    bytes_of_roberta = byte_level("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return {
        "bert": hub.BertTokenizer(vocab=word_piece()),
        "roberta": hub.RobertaTokenizer(**bytes_of_roberta),
        "gpt2": hub.GPT2Tokenizer(**byte_level("<|endoftext|>")),
        "llama": llama(),
        "t5": hub.T5Tokenizer(vocab=unigram("<unk>", "<pad>", "</s>", "<unk>"), extra_ids=4),
        "albert": hub.AlbertTokenizer(vocab=unigram("<unk>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
        "deberta-v2": hub.DebertaV2Tokenizer(vocab=unigram("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")),
    }


KINDS = ("bert", "roberta", "gpt2", "llama", "t5", "albert", "deberta-v2")
FRAMES = {
    "bert": ("[CLS]", "[SEP]"),
    "roberta": ("<s>", "</s>"),
    "t5": ("</s>",),
    "albert": ("[CLS]", "[SEP]"),
    "deberta-v2": ("[CLS]", "[SEP]"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_only_control_tokens_are_those_of_the_frame(tokenizers, kind):
    tokenizer = tokenizers[kind]
    framed = FramedEncoder(tokenizer).singles([TEXT])[0]
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id if kind != "gpt2" else None}
    found = [token for token in tokenizer.convert_ids_to_tokens(framed.ids) if token in tokenizer.all_special_tokens]
    found = [token for token in found if tokenizer.convert_tokens_to_ids(token) in control]
    assert tuple(found) == FRAMES.get(kind, ())


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("kind", KINDS)
def test_offsets_are_characters_of_the_given_text(tokenizers, kind, form):
    text = unicodedata.normalize(form, TEXT)
    framed = FramedEncoder(tokenizers[kind]).singles([text])[0]
    covered = {place for begin, end in framed.offsets for place in range(begin, end)}
    letters = {place for place, character in enumerate(text) if character.isalnum()}
    assert letters <= covered
    assert all(0 <= begin <= end <= len(text) for begin, end in framed.offsets[framed.of_text])


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_a_word_begins_behind_the_white_space(tokenizers, kind):
    text = "the  fox\njumps"
    framed = FramedEncoder(tokenizers[kind]).singles([text])[0]
    found = [text[begin:end] for begin, end in framed.offsets[framed.of_text]]
    assert all(piece == piece.lstrip() for piece in found if piece.strip())
    assert "fox" in "".join(found)


@pytest.mark.parametrize("kind", KINDS)
def test_each_token_of_a_pair_knows_its_text(tokenizers, kind):
    first, second = "the lazy dog", "a small model"
    framed = FramedEncoder(tokenizers[kind]).pairs([first], [second])[0]
    assert (framed.offsets[framed.of_text & ~framed.second, 1] <= len(first)).all()
    assert {second[begin] for begin, end in framed.offsets[framed.second] if end > begin} & set("asm")
    border = framed.offsets[: list(framed.second).index(True), 0]
    assert border[-1] == -1, "something stands between the two texts"


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_numbered_as_given_and_empty_ones_have_no_token(tokenizers, kind):
    row = ["quick", "", "fox-dog", " ", "서울은", "</s>"]
    framed = FramedEncoder(tokenizers[kind]).words([row])[0]
    text_words = framed.words[framed.of_text]
    assert sorted(set(text_words.tolist())) == [0, 2, 4, 5]
    assert (text_words[1:] >= text_words[:-1]).all()
    for word, (begin, end) in zip(text_words, framed.offsets[framed.of_text], strict=True):
        assert 0 <= begin <= end <= len(row[word])
    assert set(framed.words[~framed.of_text].tolist()) <= {-1}


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert", "deberta-v2"])
def test_a_mask_that_is_meant_is_one_token_while_other_control_tokens_stay_characters(tokenizers, kind):
    tokenizer = tokenizers[kind]
    text = f"the {tokenizer.mask_token} jumps {tokenizer.sep_token} over"
    encoder = FramedEncoder(tokenizer)
    kept = encoder.singles([text], keep=(tokenizer.mask_token,))[0]
    typed = encoder.singles([text])[0]
    assert list(kept.ids).count(tokenizer.mask_token_id) == 1
    assert list(kept.ids).count(tokenizer.sep_token_id) == 1, "the frame's own"
    assert tokenizer.mask_token_id not in typed.ids


def test_many_texts_are_framed_as_each_alone(tokenizers):
    encoder = FramedEncoder(tokenizers["bert"])
    together = encoder.singles([TEXT, *SENTENCES])
    alone = [encoder.singles([text])[0] for text in (TEXT, *SENTENCES)]
    assert [list(one.ids) for one in together] == [list(one.ids) for one in alone]


@pytest.mark.parametrize("second", ["a small", "Once upon a time there was a small model"])
@pytest.mark.parametrize("room", [4, 5, 6, 9])
def test_the_longer_text_of_a_pair_is_cut_first(tokenizers, room, second):
    encoder = FramedEncoder(tokenizers["bert"])
    framed = encoder.pairs(["the quick brown fox jumps over the lazy dog"], [second])[0]
    lengths = [int((framed.of_text & (framed.second == side)).sum()) for side in (False, True)]
    shorter = cut(framed, room + 3)
    # By hand: take from the longer one until both fit.
    while sum(lengths) > room:
        lengths[0 if lengths[0] > lengths[1] else 1] -= 1
    found = [int((shorter.of_text & (shorter.second == side)).sum()) for side in (False, True)]
    assert len(shorter) == min(len(framed), room + 3)
    assert sorted(found) == sorted(lengths)
    assert [list(pair) for pair in shorter.offsets[1:3]] == [list(pair) for pair in framed.offsets[1:3]]
    assert list(shorter.ids).count(tokenizers["bert"].sep_token_id) == 2


def test_a_cut_that_leaves_no_text_is_refused(tokenizers):
    framed = FramedEncoder(tokenizers["bert"]).singles(["the quick fox"])[0]
    with pytest.raises(DataError, match="no room for text"):
        cut(framed, 2)


def test_padding_is_the_end_token_where_there_is_no_padding_token(tokenizers):
    assert padding_id(tokenizers["bert"]) == tokenizers["bert"].pad_token_id
    assert padding_id(tokenizers["gpt2"]) == tokenizers["gpt2"].eos_token_id


ODD = [TEXT, "서울은 수도이다.", "", "é  \n\u3000 x ", " [MASK] ", "<|endoftext|>"]


@pytest.mark.parametrize("keep", [(), ("[MASK]", "<mask>")])
@pytest.mark.parametrize("kind", KINDS)
def test_without_places_the_tokens_are_the_same(tokenizers, kind, keep):
    encoder = FramedEncoder(tokenizers[kind])
    singles = encoder.singles(ODD, keep), encoder.singles(ODD, keep, placed=False)
    pairs = encoder.pairs(ODD, ODD[::-1], keep), encoder.pairs(ODD, ODD[::-1], keep, placed=False)
    for placed, unplaced in (singles, pairs):
        for one, other in zip(placed, unplaced, strict=True):
            for name in ("ids", "segments", "second", "of_text"):
                assert getattr(other, name).dtype == getattr(one, name).dtype
                assert getattr(other, name).tolist() == getattr(one, name).tolist()


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_gives_what_the_tokenizer_gives(tokenizers, kind, framed, split):
    tokenizer = tokenizers[kind]
    expected = tokenizer(ODD, add_special_tokens=framed, split_special_tokens=split).input_ids
    # What an earlier call asked for must not stick.
    padding = "max_length" if tokenizer.pad_token is not None else False
    tokenizer(ODD, padding=padding, truncation=True, max_length=4, split_special_tokens=not split)
    found = encodings(tokenizer, ODD, framed=framed, split=split)
    assert [encoding.ids for encoding in found] == expected
