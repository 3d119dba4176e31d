import pytest
from tokenizers import Tokenizer, decoders, models

from conftest import tiny_tokenizer
from lorakit.generation.streaming import TextStream

TEXTS = ("한국어 문장도", "🙂👍🏽 ok 🇰🇷", "naïve — “quoted”", "plain words", " leading", "\n\n", "é\u0301", "")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def sentencepiece_like():
    """Metaspace pieces with byte fallback, decoded as Llama's tokenizer does: the first space is dropped."""
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁Once", "▁upon", "▁a", "b", "▁"]
    backend = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def pieces_of(stream, ids):
    return [*(stream.push(token) for token in ids), stream.close()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(tokenizer, text):
    assert "".join(pieces_of(TextStream(tokenizer), tokenizer(text).input_ids)) == text


@pytest.mark.parametrize("text", TEXTS)
def test_no_piece_holds_a_part_of_a_character(tokenizer, text):
    pieces = pieces_of(TextStream(tokenizer), tokenizer(text).input_ids)
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_comes_with_its_last_byte(tokenizer):
    ids = tokenizer("x🙂").input_ids
    pieces = pieces_of(TextStream(tokenizer), ids)
    assert len(ids) == 5
    assert pieces == ["x", "", "", "", "🙂", ""]


def test_a_character_cut_by_the_end_shows_as_the_decoder_shows_it(tokenizer):
    ids = tokenizer("x🙂").input_ids[:-1]
    assert "".join(pieces_of(TextStream(tokenizer), ids)) == tokenizer.decode(ids)


def test_bytes_that_are_no_character_do_not_hold_back_what_follows(tokenizer):
    ids = [*tokenizer("🙂").input_ids[:1], *tokenizer("x").input_ids]
    assert pieces_of(TextStream(tokenizer), ids) == ["", "\ufffdx", ""]


def test_all_tokens_at_once_give_the_same_text(tokenizer):
    ids = tokenizer("한국어 🙂 ok").input_ids
    stream = TextStream(tokenizer)
    assert stream.push(*ids) + stream.close() == "한국어 🙂 ok"


def test_a_stop_text_is_found_across_tokens(tokenizer):
    ids = tokenizer("one 한국 two").input_ids
    stream = TextStream(tokenizer, ["국 t"])
    assert "".join(pieces_of(stream, ids)) == "one 한"
    assert stream.stopped


def test_special_tokens_have_no_text(tokenizer):
    ids = [*tokenizer("a").input_ids, tokenizer.eos_token_id, *tokenizer("b").input_ids]
    assert "".join(pieces_of(TextStream(tokenizer), ids)) == "ab"


def test_an_answer_that_goes_on_mid_text_keeps_its_leading_space():
    tokenizer = sentencepiece_like()
    once, upon = tokenizer.convert_tokens_to_ids(["▁Once", "▁upon"])
    assert pieces_of(TextStream(tokenizer, context=[1, once]), [upon]) == [" upon", ""]


def test_an_answer_of_its_own_has_no_leading_space():
    tokenizer = sentencepiece_like()
    upon, a = tokenizer.convert_tokens_to_ids(["▁upon", "▁a"])
    assert pieces_of(TextStream(tokenizer), [upon, a]) == ["upon", " a", ""]


def test_byte_fallback_pieces_wait_for_the_whole_character():
    tokenizer = sentencepiece_like()
    once, *kim = tokenizer.convert_tokens_to_ids(["▁Once", "▁", *(f"<0x{byte:02X}>" for byte in "김".encode())])
    assert pieces_of(TextStream(tokenizer, context=[1]), [once, *kim, once]) == [
        "Once",
        " ",
        "",
        "",
        "김",
        " Once",
        "",
    ]
