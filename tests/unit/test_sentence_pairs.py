"""Pairs of text pieces: true ones follow each other, random ones come from another document, nothing is lost."""

import math

import numpy as np
import pytest

from lorakit.objectives.sentence_pairs import Document, Pairing, sentence_ends


def sentences(text):
    ends = sentence_ends(text)
    return [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is 1.5 here. Two? Three!", ["One is 1.5 here.", "Two?", "Three!"]),
        ("서울은 수도이다. 한강이 흐른다.", ["서울은 수도이다.", "한강이 흐른다."]),
        ("東京です。大阪です！「はい。」次", ["東京です。", "大阪です！", "「はい。」", "次"]),
        (
            "A title\n\nA line without an end\nAnd “one more.” Last",
            ["A title", "A line without an end", "And “one more.”", "Last"],
        ),
        ("no mark at all", ["no mark at all"]),
    ],
)
def test_sentences_end_with_lines_and_marks(text, expected):
    assert sentences(text) == expected


def test_no_sentence_is_white_space_alone():
    assert all(sentences("One.  \n \n Two.\nThree. "[:-1]))


def documents(sizes, seed=0):
    """Documents whose token ids are all different: the hundreds of millions say which, the rest where."""
    draw = np.random.default_rng(seed)
    made = []
    for row, count in enumerate(sizes):
        ends = np.cumsum(draw.integers(1, 12, count))
        ids = (row * 10_000 + np.arange(ends[-1])).astype(np.int32)
        made.append(Document(ids, np.arange(ends[-1], dtype=np.int32), ends, row, f"line {row + 1}"))
    return made


def pieces(documents, room=40, seed=0):
    pairing = Pairing(documents, room, seed)
    pairs = [pair for number in range(len(documents)) for pair in pairing.pairs(number)]
    return [
        (pair.is_random, pair.first.ids[pair.begin : pair.cut], pair.second.ids[pair.start : pair.stop])
        for pair in pairs
    ]


MIXED = tuple(np.random.default_rng(1).integers(1, 30, 150))


def test_true_neighbours_follow_in_their_document():
    true = [(first, second) for is_random, first, second in pieces(documents(MIXED)) if not is_random]
    assert true
    assert all(second[0] == first[-1] + 1 for first, second in true)


def test_false_neighbours_come_from_another_document():
    false = [(first, second) for is_random, first, second in pieces(documents(MIXED)) if is_random]
    assert false
    assert all(second[0] // 10_000 != first[0] // 10_000 for first, second in false)


@pytest.mark.parametrize("sizes", [MIXED, (2,) * 400, (3,) * 300, (40,) * 30])
def test_half_of_the_pairs_are_true_neighbours(sizes):
    drawn = [is_random for is_random, _, _ in pieces(documents(sizes))]
    assert abs(np.mean(drawn) - 0.5) < 4 * math.sqrt(0.25 / len(drawn))


def test_every_token_is_read_once_besides_random_pieces():
    made = documents(MIXED)
    read = [piece for is_random, *both in pieces(made) for piece in (both[:1] if is_random else both)]
    assert np.array_equal(np.concatenate(read), np.concatenate([document.ids for document in made]))


def test_no_pair_is_longer_than_its_room_and_no_piece_is_empty():
    found = pieces(documents(MIXED), room=7)
    assert max(len(first) + len(second) for _, first, second in found) == 7
    assert min(min(len(first), len(second)) for _, first, second in found) == 1


def test_a_document_of_one_sentence_gets_a_false_neighbour():
    found = pieces(documents((1, 5)))
    assert found[0][0]


def test_another_seed_draws_other_pairs():
    one, other = ([len(first) for _, first, _ in pieces(documents(MIXED), seed=seed)] for seed in (0, 1))
    assert one != other
