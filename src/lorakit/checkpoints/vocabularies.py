"""Tokenizers learned from text: byte pairs (GPT), word pieces (BERT), and a unigram model of pieces (T5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

Kind = Literal["byte_pairs", "word_pieces", "unigram"]

END_OF_TEXT = "<|endoftext|>"
"""Starts and ends a document, as in GPT-2; always id 0. There is no padding token."""

BERT_CONTROLS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
T5_CONTROLS = ("<pad>", "</s>", "<unk>")
SENTINELS = tuple(f"<extra_id_{number}>" for number in reversed(range(100)))
"""Stand for the spans that were cut out; as in T5 the first one has the highest id."""

_PRINTABLE = tuple(map(chr, range(0x21, 0x7F)))
"""ASCII without the space: read whatever the text holds."""
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))

SMALLEST: dict[Kind, int] = {
    "byte_pairs": 256 + 1,
    # Letters and digits also stand inside a word.
    "word_pieces": len(BERT_CONTROLS) + len(_PRINTABLE) + 62,
    "unigram": len(T5_CONTROLS) + len(_BYTES) + len(_PRINTABLE) + 1 + len(SENTINELS),
}
"""Kind of tokenizer -> the fewest tokens with which any English text can be written."""

WHAT_IT_HOLDS: dict[Kind, str] = {
    "byte_pairs": f"the 256 bytes and {END_OF_TEXT}",
    "word_pieces": f"{', '.join(BERT_CONTROLS)} and the characters of ASCII",
    "unigram": "the 256 bytes, the characters of ASCII and 100 sentinels",
}
"""Kind of tokenizer -> these fewest tokens, for messages."""

_LEADS, _VOWELS, _TAILS = range(0x1100, 0x1113), range(0x1161, 0x1176), range(0x11A8, 0x11C3)
_COMPATIBLE = range(0x3131, 0x3164)
JAMO = tuple(map(chr, (*_LEADS, *_VOWELS, *_TAILS, *_COMPATIBLE)))
"""The Hangul alphabet: the letters that modern syllables are made of, and those that are typed alone (ㅋㅋ, ㅠㅠ)."""
OPEN_SYLLABLES = tuple(chr(lead) + chr(vowel) for lead in _LEADS for vowel in _VOWELS)
"""The 399 syllables without a final consonant, in letters."""

_INSIDE = "##"
_LONGEST_WORD = 1000
_NOT_A_CHARACTER = "\ufdd0"
"""Never part of a text (Unicode 16.0, section 23.7): a typed U+2581, T5's sign for a space, is read as this."""


def learn(kind: Kind, documents: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer; the same documents give the same one.

    Args:
        kind: What it is made of.
        documents: Texts that pieces are counted in.
        vocab_size: Most tokens, all that `SMALLEST` counts included.
        max_length: Longest input of the model, in tokens; written into the tokenizer's configuration.

    Raises:
        CheckpointError: The different characters of the text alone are more than `vocab_size`.
    """
    return _LEARNERS[kind](documents, vocab_size, max_length)


def byte_pairs(documents: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909, algorithm 1; bytes as in GPT-2).

    Every byte is a token, so that no character of any language is lost. Digits stand alone: a number is spelled the
    same way wherever it occurs, and a small model can copy one it has never seen.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(documents, trainer)
    return _finished(backend, max_length, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)


def word_pieces(documents: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn WordPiece as BERT reads it (Devlin et al. 2019, arXiv:1810.04805, section 3), cased, accents kept.

    Every character of the text, and of ASCII, is a piece at the start of a word and inside one; another character
    makes its word [UNK]. Korean is read in letters (NFD), so that 67 of them write all 11,172 modern syllables: where
    the text holds Hangul the whole alphabet is kept, and where they take at most a quarter of the vocabulary the 399
    open syllables, so that an unseen syllable costs one or two pieces. Common syllables and words become one piece.

    What is lost is what BERT loses, line ends and runs of spaces, and whether a text was NFC or NFD; a word of more
    than 1,000 letters without a space is [UNK].
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.BertNormalizer(strip_accents=False, lowercase=False)]
    )
    texts = list(documents)
    pieces = _alphabet(texts, normalizer, vocab_size)
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    # Named as special tokens the alphabet gets its ids first; the trainer's own order changes from run to run.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=pieces, limit_alphabet=0x110000, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    backend = Tokenizer(
        models.WordPiece(learner.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD)
    )
    backend.normalizer, backend.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
    backend.decoder = decoders.WordPiece()
    start, end = (("[CLS]", BERT_CONTROLS.index("[CLS]")), ("[SEP]", BERT_CONTROLS.index("[SEP]")))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[start, end]
    )
    names = (f"{control.strip('[]').lower()}_token" for control in BERT_CONTROLS)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return _finished(backend, max_length, model_input_names=inputs, **dict(zip(names, BERT_CONTROLS, strict=True)))


def _alphabet(texts: Iterable[str], normalizer: Any, vocab_size: int) -> list[str]:
    """Return the pieces that are kept however rare they are, in the order of their ids."""
    from tokenizers import pre_tokenizers

    seen = {character for text in texts for character in normalizer.normalize_str(text) if not character.isspace()}
    korean = not seen.isdisjoint(JAMO)
    alphabet = sorted(seen.union(_PRINTABLE, JAMO if korean else ()))
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    # Signs and Chinese characters are words of their own, and never stand inside one.
    inside = [sign for sign in alphabet if len(split(normalizer.normalize_str(f"a{sign}"))) == 1]
    pieces = [*BERT_CONTROLS, *alphabet, *(_INSIDE + sign for sign in inside)]
    if len(pieces) > vocab_size:
        raise CheckpointError(
            f"the text holds {len(alphabet):,} different characters, which take {len(pieces):,} pieces of word; "
            f"vocab-size is {vocab_size:,}. Choose --vocab-size {len(pieces) * 5 // 4} or more."
        )
    if korean and 2 * len(OPEN_SYLLABLES) <= vocab_size // 4:
        pieces += [start + syllable for start in ("", _INSIDE) for syllable in OPEN_SYLLABLES]
    return pieces


def unigram(documents: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn a unigram model of pieces (Kudo 2018, arXiv:1804.10959, section 3.2), with T5's control tokens.

    A character that is no piece is read as its bytes, so that any text is written and read back as it was, spaces and
    line ends too. Digits stand alone, as in `byte_pairs`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Replace("▁", _NOT_A_CHARACTER)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n+"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            # Nothing is put before the first word: what follows a line end or a sentinel is read as it stands.
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )
    room = vocab_size - len(T5_CONTROLS) - len(_BYTES) - len(SENTINELS)
    texts = list(documents)
    alphabet = {*_PRINTABLE, "▁", *(character for text in texts for character in set(text))}
    trainer = trainers.UnigramTrainer(
        # The trainer wants room for every character, though bytes can stand for the rarest, and for its unknown sign.
        vocab_size=max(room, len(alphabet)) + 1,
        initial_alphabet=[*_PRINTABLE, "▁"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learned = _settled(json.loads(backend.to_str())["model"]["vocab"], room)
    # A typed `</s>` or `<0x41>` must stay characters: their own pieces together are always likelier than this.
    never = 20 * min(score for _, score in learned)
    vocabulary = [*((piece, never) for piece in (*T5_CONTROLS, *_BYTES)), *learned]
    backend.model = models.Unigram(vocabulary, T5_CONTROLS.index("<unk>"), byte_fallback=True)
    backend.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Metaspace(prepend_scheme="never"),
            decoders.Fuse(),
            decoders.Replace(_NOT_A_CHARACTER, "▁"),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", T5_CONTROLS.index("</s>"))]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    backend.add_special_tokens([*T5_CONTROLS, *SENTINELS])
    inputs = ["input_ids", "attention_mask"]
    return _finished(backend, max_length, extra_special_tokens=list(SENTINELS), model_input_names=inputs, **names)


def _settled(scored: list[tuple[str, float]], room: int) -> list[tuple[str, float]]:
    """Return the `room` likeliest pieces with their log probabilities, the same ones in every run.

    The trainer hands the characters too rare for a score of their own one just above the lowest, a step of 1e-4 apart,
    in an order that changes from run to run; here they share one.
    """
    found = [(piece, score) for piece, score in scored if piece not in T5_CONTROLS]
    lowest = min(score for _, score in found)
    rare = lowest + 1e-4 * sum(len(piece) == 1 for piece, _ in found)
    settled = {piece: round(lowest if len(piece) == 1 and score <= rare else score, 6) for piece, score in found}
    kept = {piece: settled[piece] for piece in (*_PRINTABLE, "▁")}
    for piece in sorted(settled, key=lambda piece: (-settled[piece], piece)):
        if len(kept) < room:
            kept.setdefault(piece, settled[piece])
    return sorted(kept.items(), key=lambda item: (-item[1], item[0]))


def _finished(backend: Tokenizer, max_length: int, **names: Any) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=max_length, **names)


_LEARNERS: dict[Kind, Callable[[Iterable[str], int, int], PreTrainedTokenizerFast]] = {
    "byte_pairs": byte_pairs,
    "word_pieces": word_pieces,
    "unigram": unigram,
}
