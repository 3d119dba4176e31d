"""Text for models that read it whole, framed by the tokenizer's own start and end tokens.

Each token knows which characters it stands for, in which word and in which text. Text typed by people never becomes a
control token: ``[SEP]`` inside a row is five characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lorakit.checkpoints.finding import padding_id as padding_id
from lorakit.data.encoding import encodings
from lorakit.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Encoding

_SPACES = np.array([chr(code).isspace() for code in range(0x3002)])
"""Whether a character is white space, by its code; none is behind U+3000."""
_Piece = tuple[int, int, int]
"""Id of a token, and the characters it stands for: begin and end."""


@dataclass(frozen=True, slots=True)
class Framed:
    """One text, or a pair of texts, as a model reads it."""

    ids: np.ndarray
    """Token ids, the start and end tokens included, shape (T,), int32."""
    segments: np.ndarray
    """Token types as the tokenizer sets them: 1 in the second text where the model tells them apart, (T,), int32."""
    offsets: np.ndarray
    """Begin and end of each token in characters of its own text (of its own word in `FramedEncoder.words`).

    Shape (T, 2), int32; -1 where a token stands for no text. White space before a word is not counted to it.
    """
    words: np.ndarray
    """Number of the word in its text, or -1, shape (T,), int32."""
    second: np.ndarray
    """Whether a token belongs to the second text of a pair, shape (T,), bool."""

    def __len__(self) -> int:
        """Tokens, start and end included."""
        return len(self.ids)

    @property
    def of_text(self) -> np.ndarray:
        """Whether a token stands for text, shape (T,), bool."""
        return self.offsets[:, 0] >= 0

    def chosen(self, kept_T: np.ndarray) -> Framed:
        """Return the tokens that a mask of shape (T,) keeps."""
        return Framed(*(part[kept_T] for part in (self.ids, self.segments, self.offsets, self.words, self.second)))


class FramedEncoder:
    """Frames texts with the post-processor of a fast tokenizer.

    Args:
        tokenizer: A fast transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        control = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        control |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        control.pop(tokenizer.unk_token_id, None)
        self._control: dict[int, str] = control
        self._between = self._missing_border()

    def singles(self, texts: Sequence[str], keep: Collection[str] = (), placed: bool = True) -> list[Framed]:
        """Frame each text by itself.

        Args:
            texts: As people typed them.
            keep: Control tokens that are meant where they are typed, such as ``[MASK]`` in a prediction.
            placed: Whether it is asked which characters and words tokens stand for; where not, it is three times as
                fast, `offsets` are 0 in text, and `words` -1.
        """
        return self._frame([(text,) for text in texts], keep, placed)

    def pairs(
        self, first: Sequence[str], second: Sequence[str], keep: Collection[str] = (), placed: bool = True
    ) -> list[Framed]:
        """Frame two texts as one input, each first text with the second one at its place.

        Where the tokenizer puts nothing between the two, as those of most decoders, a line break stands there.
        """
        return self._frame(list(zip(first, second, strict=True)), keep, placed)

    def words(self, rows: Sequence[Sequence[str]]) -> list[Framed]:
        """Frame rows of words; the words are read as in running text, with a space between two.

        Joined words become the pieces that the model saw in pretraining; byte-level tokenizers make others of a word
        that no space precedes. A word without characters has no token.
        """
        written = [[number for number, word in enumerate(row) if word.strip()] for row in rows]
        framed = self.singles(
            [" ".join(row[number] for number in kept) for row, kept in zip(rows, written, strict=True)]
        )
        return [_by_words(each, row, kept) for each, row, kept in zip(framed, rows, written, strict=True)]

    def _frame(self, texts: Sequence[tuple[str, ...]], keep: Collection[str], placed: bool) -> list[Framed]:
        if not texts:
            return []
        inputs = [each[0] if len(each) == 1 else each for each in texts]
        unmeant_V = np.zeros(2 + max(self._control, default=0), dtype=bool)
        unmeant_V[[number for number, name in self._control.items() if name not in keep]] = True
        # The backend reads either all typed control tokens or none; `_spelled` mends those that are not meant.
        if placed:
            found = self.tokenizer(inputs, split_special_tokens=not keep, verbose=False).encodings
            return [self._placed(encoding, each, unmeant_V) for encoding, each in zip(found, texts, strict=True)]
        found = encodings(self.tokenizer, inputs, split=not keep)
        return [
            self._unplaced(encoding, len(each), unmeant_V) or self._frame([each], keep, placed=True)[0]
            for encoding, each in zip(found, texts, strict=True)
        ]

    def _unplaced(self, encoding: Encoding, texts: int, unmeant_V: np.ndarray) -> Framed | None:
        """Return a text, or a pair of `texts`, without places; None where it has to be spelled, which needs them."""
        sequences = _sequences(encoding)
        framed = Framed(
            ids=np.array(encoding.ids, dtype=np.int32),
            segments=np.array(encoding.type_ids, dtype=np.int32),
            offsets=np.minimum(sequences, 0)[:, None].repeat(2, axis=1),
            words=np.full(len(sequences), -1, dtype=np.int32),
            second=sequences == 1,
        )
        if len(_typed(framed, unmeant_V)):
            return None
        return self._with_border(framed) if texts == 2 and self._between else framed

    def _placed(self, encoding: Encoding, texts: tuple[str, ...], unmeant_V: np.ndarray) -> Framed:
        sequences = _sequences(encoding)
        framed = Framed(
            ids=np.array(encoding.ids, dtype=np.int32),
            segments=np.array(encoding.type_ids, dtype=np.int32),
            offsets=np.where((sequences >= 0)[:, None], np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2), -1),
            words=np.array([-1 if number is None else number for number in encoding.word_ids], dtype=np.int32),
            second=sequences == 1,
        )
        typed = _typed(framed, unmeant_V)
        if len(typed):
            framed = self._spelled(framed, typed)
        if len(texts) == 2 and self._between:
            framed = self._with_border(framed)
        for number, text in enumerate(texts):
            _bound(framed.offsets, framed.of_text & (framed.second == bool(number)), text)
        return framed

    def _spelled(self, framed: Framed, typed: np.ndarray) -> Framed:
        """Put characters in the place of typed control tokens.

        They come where other control tokens are meant, and from Unigram vocabularies, in which ``</s>`` is a piece like
        any other.
        """
        pieces = {place: self._spelling(framed, place) for place in typed}
        repeats = np.array([len(pieces.get(place, (None,))) for place in range(len(framed))])
        longer = framed.chosen(np.repeat(np.arange(len(framed)), repeats))
        starts = np.cumsum(repeats) - repeats
        for place, spelling in pieces.items():
            for number, (token, begin, end) in enumerate(spelling, start=int(starts[place])):
                longer.ids[number] = token
                longer.offsets[number] = begin, end
        return longer

    def _spelling(self, framed: Framed, place: int) -> list[_Piece]:
        begin, end = framed.offsets[place]
        name = self._control[int(framed.ids[place])]
        # Some control tokens take the white space around them.
        begin = max(begin, end - len(name))
        return [
            (token, min(begin + number, end), min(begin + number + 1, end))
            for number, character in enumerate(name)
            for token in self._character(character)
        ]

    def _character(self, character: str) -> list[int]:
        """Return the ids of one character that stands inside a word: its own piece, its bytes, or unknown."""
        number_of = self.tokenizer.backend_tokenizer.token_to_id
        for spelling in (character, f"##{character}"):
            if number_of(spelling) is not None:
                return [number_of(spelling)]
        in_bytes = [number_of(f"<0x{byte:02X}>") for byte in character.encode()]
        if None not in in_bytes:
            return in_bytes
        return [] if self.tokenizer.unk_token_id is None else [self.tokenizer.unk_token_id]

    def _missing_border(self) -> list[int]:
        """Return what has to stand between two texts because the tokenizer puts nothing there."""
        sequences = self.tokenizer(["a"], ["b"], verbose=False).encodings[0].sequence_ids
        if None in sequences[sequences.index(0) : sequences.index(1)]:
            return []
        return list(self.tokenizer("\n", add_special_tokens=False).input_ids)

    def _with_border(self, framed: Framed) -> Framed:
        place = int(np.argmax(framed.second)) if framed.second.any() else len(framed)
        count = len(self._between)
        return Framed(
            ids=np.insert(framed.ids, place, self._between),
            segments=np.insert(framed.segments, place, [0] * count),
            offsets=np.insert(framed.offsets, place, np.full((count, 2), -1), axis=0),
            words=np.insert(framed.words, place, [-1] * count),
            second=np.insert(framed.second, place, [False] * count),
        )


def cut(framed: Framed, max_length: int) -> Framed:
    """Cut texts at their end until `max_length` tokens are left, of a pair the longer one first.

    Start and end tokens stay; offsets of what is left are those it had.

    Raises:
        DataError: Not even one token of text would be left.
    """
    surplus = len(framed) - max_length
    if surplus <= 0:
        return framed
    first = np.flatnonzero(framed.of_text & ~framed.second)
    second = np.flatnonzero(framed.of_text & framed.second)
    room = len(first) + len(second) - surplus
    if room < 1:
        raise DataError(
            f"max_length {max_length} leaves no room for text beside the {len(framed) - len(first) - len(second)} "
            f"tokens that frame it. Raise data.max_length."
        )
    shorter = min(len(first), len(second), room // 2)
    longer = room - shorter
    kept_T = np.ones(len(framed), dtype=bool)
    of_first, of_second = (longer, shorter) if len(first) >= len(second) else (shorter, longer)
    kept_T[first[of_first:]] = False
    kept_T[second[of_second:]] = False
    return framed.chosen(kept_T)


def _sequences(encoding: Encoding) -> np.ndarray:
    """Return to which text each token belongs, 0 or 1, and -1 where to none, shape (T,), int32."""
    return np.array([-1 if number is None else number for number in encoding.sequence_ids], dtype=np.int32)


def _typed(framed: Framed, unmeant_V: np.ndarray) -> np.ndarray:
    """Return the places of control tokens that people typed and did not mean; the last entry is False."""
    return np.flatnonzero(unmeant_V[np.minimum(framed.ids, len(unmeant_V) - 1)] & framed.of_text)


def _by_words(framed: Framed, row: Sequence[str], kept: Sequence[int]) -> Framed:
    """Return offsets and numbers by the words of `row` of which `kept` were joined."""
    lengths = np.array([len(row[number]) for number in kept], dtype=np.int32)
    starts = np.cumsum(lengths + 1) - (lengths + 1)
    of_text = framed.of_text
    # A token that stands for the space alone counts to the word after it.
    places = np.searchsorted(starts + lengths, framed.offsets[of_text, 0], side="right")
    places = np.minimum(places, len(kept) - 1)
    words = np.full(len(framed), -1, dtype=np.int32)
    words[of_text] = np.asarray(kept, dtype=np.int32)[places]
    offsets = framed.offsets.copy()
    offsets[of_text] = np.clip(offsets[of_text] - starts[places, None], 0, lengths[places, None])
    return replace(framed, words=words, offsets=offsets)


def _bound(offsets: np.ndarray, chosen_T: np.ndarray, text: str) -> None:
    """Move the bounds of tokens to those of what people see, in place.

    Each begins behind white space (one of white space alone keeps its last character), and ends behind marks that a
    composing normaliser drew into its last letter.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    spaces = _SPACES[np.minimum(codes, len(_SPACES) - 1)]
    places = np.flatnonzero(chosen_T)
    while spaces.any() and len(places):
        begin, end = offsets[places].T
        places = places[(begin < end - 1) & spaces[np.minimum(begin, len(text) - 1)]]
        offsets[places, 0] += 1
    if text.isascii() or not any(map(_joins, set(text))):
        return
    begun = set(offsets[chosen_T, 0].tolist())
    for place in np.flatnonzero(chosen_T):
        begin, end = offsets[place].tolist()
        while begin < end < len(text) and end not in begun and _joins(text[end]):
            end += 1
        offsets[place, 1] = end


def _joins(character: str) -> bool:
    """Whether a character is part of the letter before it: a combining mark, a vowel or final of decomposed Korean."""
    return unicodedata.combining(character) > 0 or "\u1160" <= character <= "\u11ff"
