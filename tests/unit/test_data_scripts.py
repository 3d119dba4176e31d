"""What a tokenizer makes of each script."""

from __future__ import annotations

import pytest
from transformers import BertTokenizer, GPT2Tokenizer

from lorakit.data.report import examine
from lorakit.data.scripts import readability, script_of, spoken
from lorakit.types import Format, Row

TEXT = Format("text", {"text": ("text",)})
KOREAN = ["한국어 영화 나는 본다", "오늘 영화 좋다"]
ENGLISH = ["a film that people watch", "the quick brown fox"]
JAMO = [chr(place) for place in (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3))]


def word_pieces(folder, pieces, strip_accents: bool = False):
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    whole = sorted(set(" ".join([*ENGLISH, "lazy dog jumps over while read what was written about it"]).split()))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *alphabet, *whole, *pieces]
    vocabulary += [f"##{piece}" for piece in [*alphabet, *pieces]]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n", encoding="utf-8")
    return BertTokenizer.from_pretrained(str(folder), do_lower_case=True, strip_accents=strip_accents)


@pytest.fixture
def english(tmp_path):
    """Like bert-base-uncased: it takes Korean apart into jamo."""
    return word_pieces(tmp_path, JAMO, strip_accents=True)


@pytest.fixture
def korean(tmp_path):
    return word_pieces(tmp_path, sorted(set("".join(KOREAN)) - {" "}))


@pytest.mark.parametrize(
    ("character", "script"),
    [
        *(("a", "Latin"), ("é", "Latin"), ("한", "Hangul"), ("ㅋ", "jamo"), ("\u1112", "jamo"), ("漢", "Han")),
        *(("か", "Kana"), ("ー", "Kana"), ("ж", "Cyrillic"), ("7", "other"), ("。", "other"), ("🙂", "other")),
        *(("ಕ", "Kannada"), ("ກ", "Lao"), ("ක", "Sinhala"), ("Ａ", "Latin"), ("ｶ", "Kana"), ("々", "Han")),
        *(("ﾡ", "jamo"), ("ª", "other"), ("𝐀", "other"), ("ʰ", "other"), ("\ue000", "other")),
    ],
)
def test_a_character_has_a_script(character, script):
    assert script_of(character) == script


def test_counts_are_those_of_a_hand_count(korean):
    (hangul, latin, other) = readability(["나는 fox, 본다 zz한"], korean)
    assert (hangul.script, hangul.words, hangul.characters, hangul.tokens, hangul.unknown) == ("Hangul", 3, 5, 5, 0)
    assert (latin.script, latin.words, latin.characters, latin.tokens) == ("Latin", 2, 5, 3)
    assert (other.characters, other.tokens, other.unknown) == (1, 1, 1)
    assert (hangul.tokens_per_word, hangul.tokens_per_character, other.unknown_share) == (5 / 3, 1.0, 1.0)


def test_pieces_are_counted_as_the_tokenizer_counts_them(english):
    counts = readability(KOREAN + ENGLISH, english)
    whole = sum(len(english(text, add_special_tokens=False).input_ids) for text in KOREAN + ENGLISH)
    assert sum(one.tokens for one in counts) == whole


def test_a_tokenizer_that_takes_korean_apart_is_a_warning(english):
    said = spoken(readability(KOREAN, english), english)
    assert said[0].startswith("THIS CHECKPOINT HARDLY READS HANGUL")
    assert said[1].startswith("Hangul: ")


def test_a_tokenizer_without_korean_is_a_warning(tmp_path):
    tokenizer = word_pieces(tmp_path, [])
    said = spoken(readability(KOREAN, tokenizer), tokenizer)
    assert said[0].startswith("THIS CHECKPOINT CANNOT READ HANGUL: 100 % of what it reads")


def test_bytes_for_korean_are_a_warning_where_english_words_stay_whole(tmp_path):
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges = [("t", "h"), ("th", "e"), ("e", "r"), *(("\u0120", letter) for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {piece: number for number, piece in enumerate([*letters, *("".join(pair) for pair in merges)])}
    whole = GPT2Tokenizer(vocab=vocabulary, merges=merges)
    assert spoken(readability(KOREAN, whole), whole)[0].startswith("THIS CHECKPOINT HARDLY READS HANGUL")
    plain = GPT2Tokenizer(vocab=dict(zip(letters, range(256), strict=True)), merges=[])
    assert not any("THIS CHECKPOINT" in note for note in spoken(readability(KOREAN, plain), plain))


def test_one_script_that_is_read_well_has_a_line_and_no_warning(korean):
    assert spoken(readability(KOREAN, korean), korean) == [
        "Hangul: 2.14 tokens a word, 1.00 a character, 0 % of them unknown."
    ]


@pytest.mark.parametrize(("text", "script"), [("ಕನ್ನಡ ಭಾಷೆ", "KANNADA"), ("ພາສາ ລາວ", "LAO")])
def test_a_script_of_any_name_that_is_not_read_is_a_warning(korean, text, script):
    assert spoken(readability([text], korean), korean)[0].startswith(f"THIS CHECKPOINT CANNOT READ {script}: 100 %")


def test_emoji_that_are_unknown_pieces_have_a_line(korean):
    (said,) = spoken(readability(["🙂 👍", "🎉"], korean), korean)
    assert said.startswith("Emoji, symbols, digits and punctuation: 100 % of them are unknown pieces")


def test_a_rare_symbol_has_no_line(korean):
    assert len(spoken(readability([*KOREAN * 20, "🙂"], korean), korean)) == 1


def test_a_script_that_hardly_occurs_is_no_warning(korean):
    assert spoken(readability([*KOREAN * 5, "漢字"], korean), korean)[0].startswith("Hangul: ")


def test_several_scripts_have_a_line_each(korean):
    said = spoken(readability(KOREAN + ENGLISH, korean), korean)
    assert said == [
        "Latin: 1.00 tokens a word, 0.25 a character, 0 % of them unknown.",
        "Hangul: 2.14 tokens a word, 1.00 a character, 0 % of them unknown.",
    ]


def test_the_report_counts_scripts_of_words_and_not_of_labels(korean):
    rows = [Row({"text": "한국어", "label": "joy"}, "rows.csv", 2)]
    report = examine([], rows, [], Format("labelled", {"text": ("text",), "label": ("label",)}), tokenizer=korean)
    assert [one.script for one in report.scripts] == ["Hangul"]


def test_the_report_warns_before_anything_is_trained(english):
    report = examine([], [Row({"text": text}, "rows.txt", 1) for text in KOREAN], [], TEXT, tokenizer=english)
    assert any("HARDLY READS HANGUL" in note for note in report.notes)
