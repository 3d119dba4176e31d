"""Word pieces and unigrams: nothing that is typed is lost, and control tokens have the ids that the configs say."""

import json
import unicodedata

import pytest
from transformers import AutoTokenizer

from lorakit.checkpoints import vocabularies
from lorakit.errors import CheckpointError
from lorakit.workflows.creating import new

TEXT = "The cat sat on the mat in 2024.\n\n\nThe dog sat on the cat. 고양이가 앉았다. 漢字 😀\n" * 20
SYLLABLES = [chr(code) for code in range(ord("가"), ord("힣") + 1)]
SHAPE = {"layers": 1, "hidden": 8, "heads": 2, "positions": 32}


def made(tmp_path_factory, architecture, vocab_size, text=TEXT):
    folder = tmp_path_factory.mktemp(architecture)
    (folder / "text.txt").write_text(text, encoding="utf-8")
    new(architecture, folder / "text.txt", folder / "new", vocab_size=vocab_size, **SHAPE)
    return folder / "new"


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    return made(tmp_path_factory, "bert", 600)


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    return made(tmp_path_factory, "t5", 500)


@pytest.fixture(scope="module")
def bert(bert_folder):
    return AutoTokenizer.from_pretrained(bert_folder)


@pytest.fixture(scope="module")
def t5(t5_folder):
    return AutoTokenizer.from_pretrained(t5_folder)


def read_back(tokenizer, text):
    return tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids)


def test_word_pieces_read_every_modern_syllable_at_the_start_and_inside_of_a_word(bert):
    assert len(SYLLABLES) == 11_172
    text = " ".join(f"{syllable}x{syllable}" for syllable in SYLLABLES)
    ids = bert(text, add_special_tokens=False).input_ids
    assert bert.unk_token_id not in ids
    assert unicodedata.normalize("NFC", bert.decode(ids)) == text


def test_word_pieces_read_letters_typed_alone_and_decomposed_korean_as_composed(bert):
    assert read_back(bert, "ㅋㅋ ㅠㅠ") == "ㅋㅋ ㅠㅠ"
    assert bert(unicodedata.normalize("NFD", "뷁 서울은")).input_ids == bert("뷁 서울은").input_ids


def test_open_syllables_are_pieces_where_they_take_a_quarter_at_most(tmp_path_factory):
    tokenizer = AutoTokenizer.from_pretrained(made(tmp_path_factory, "bert", 3192))
    assert max(len(tokenizer(syllable, add_special_tokens=False).input_ids) for syllable in SYLLABLES) == 2


def test_a_text_without_hangul_gets_no_hangul(tmp_path_factory):
    tokenizer = AutoTokenizer.from_pretrained(
        made(tmp_path_factory, "bert", 4000, "Plain words, and more words.\n" * 9)
    )
    assert not [piece for piece in tokenizer.get_vocab() if any("HANGUL" in unicodedata.name(c, "") for c in piece)]


def test_word_pieces_keep_case_accents_and_every_character_seen(bert):
    for text in ("The cat", "고양이가 앉았다", "漢 字 😀"):
        assert unicodedata.normalize("NFC", read_back(bert, text)) == text
    assert bert("The").input_ids != bert("the").input_ids


def test_word_pieces_point_into_the_text_as_it_was_typed(bert):
    encoded = bert("큰 뷁이", return_offsets_mapping=True, add_special_tokens=False)
    assert {tuple(offset) for offset in encoded.offset_mapping} == {(0, 1), (2, 3), (3, 4)}


def test_word_pieces_frame_a_pair_as_bert_does(bert):
    encoded = bert("cat", "dog sat")
    tokens = bert.convert_ids_to_tokens(encoded.input_ids)
    second = tokens.index("[SEP]") + 1
    assert (tokens[0], tokens[-1], tokens.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    assert encoded.token_type_ids == [int(place >= second) for place in range(len(tokens))]
    assert bert.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    assert bert("cat [MASK]").input_ids[-2] == bert.mask_token_id


def test_more_characters_than_the_vocabulary_holds_are_an_error_that_says_how_many(tmp_path_factory):
    chinese = " ".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    with pytest.raises(CheckpointError, match=r"394 different characters, which take 461 pieces.*--vocab-size 576"):
        made(tmp_path_factory, "bert", 400, chinese)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " leading, trailing and  double   spaces ",
        "line\nends\r\n\n\tand tabs\n",
        "▁ the sign for a space ▁▁",
        "<0x41> <0xEA> bytes that were typed",
        "سلام עולם नमस्ते สวัสดี",
        "Z̷a̸l̵g̶o̴ ́ é é",
        "👩‍👩‍👧‍👦🏳️‍🌈 😀",
        "null\x00 bell\x07 del\x7f nel\x85 \ufeff\u200b\u2028",
        "𐍈𝒳 \U0010ffff 뷁 ㅋㅋ 漢字 １２３ ½",
        "'; DROP TABLE rows; -- ${x} %s \\n",
        "".join(SYLLABLES[::97]),
    ],
)
def test_unigrams_read_any_text_back_as_it_was(t5, text):
    assert read_back(t5, text) == text


def test_unigrams_read_more_characters_than_the_vocabulary_holds(tmp_path_factory):
    text = " ".join(map(chr, range(0x4E00, 0x4E00 + 900)))
    tokenizer = AutoTokenizer.from_pretrained(made(tmp_path_factory, "t5", 500, text))
    assert len(tokenizer) == 500
    assert read_back(tokenizer, text) == text


@pytest.mark.parametrize("control", ["</s>", "<pad>", "<unk>", "<0x41>", "<extra_id_0>"])
def test_a_typed_control_token_can_be_read_as_characters(t5, control):
    ids = t5(control, add_special_tokens=False, split_special_tokens=True).input_ids
    assert len(ids) > 1
    assert t5.decode(ids) == control


def test_sentinels_count_down_from_the_last_id_and_the_first_one_is_the_highest(t5):
    last = len(t5) - 1
    assert t5.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(100)]) == list(range(last, last - 100, -1))


def test_unigrams_end_each_text_and_know_all_bytes(t5):
    assert t5("cat", "dog").input_ids.count(t5.eos_token_id) == 2
    assert t5.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    assert len({t5.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in range(256)} - {t5.unk_token_id}) == 256


def test_configs_carry_the_ids_of_the_control_tokens(bert_folder, t5_folder):
    bert, t5 = (json.loads((folder / "config.json").read_text()) for folder in (bert_folder, t5_folder))
    assert bert["pad_token_id"] == 0
    assert (t5["pad_token_id"], t5["eos_token_id"], t5["decoder_start_token_id"]) == (0, 1, 0)


def test_rare_characters_share_a_score_whatever_order_the_trainer_gave_them():
    scored = [("ab", -3.0), ("c", -2.0), ("x", -5.0), ("y", -4.9999), ("de", -5.0)]
    swapped = [("ab", -3.0), ("c", -2.0), ("y", -5.0), ("x", -4.9999), ("de", -5.0)]
    assert vocabularies._settled(pad(scored), 200) == vocabularies._settled(pad(swapped), 200)


def pad(scored):
    return [*scored, *((sign, -1.0) for sign in (*vocabularies._PRINTABLE, "▁") if sign not in {"c", "x", "y"})]
