import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorakit.generation.stopping import StopFinder


def let_through(stops, pieces):
    finder = StopFinder(stops)
    shown = [finder.push(piece) for piece in pieces]
    return "".join([*shown, finder.close()]), finder.found


def test_a_stop_text_across_pieces_ends_the_text_before_it():
    assert let_through(["\n\nUser:"], ["Hi.\n", "\nUs", "er: more"]) == ("Hi.", "\n\nUser:")


def test_what_may_begin_a_stop_text_is_held_back():
    finder = StopFinder(["END"])
    assert finder.push("the E") == "the "
    assert finder.push("N") == ""
    assert finder.push("T") == "ENT"


def test_held_text_comes_out_at_the_end():
    assert let_through(["END"], ["the EN"]) == ("the EN", None)


def test_nothing_comes_after_a_stop_text():
    finder = StopFinder(["."])
    assert [finder.push("a.b"), finder.push("c"), finder.close()] == ["a", "", ""]


def test_a_repeated_beginning_is_found():
    assert let_through(["aab"], ["a", "a", "a", "b"]) == ("a", "aab")


def by_characters(stops, text):
    """The plain meaning: read character by character until one stop text is complete."""
    for end in range(len(text) + 1):
        done = [stop for stop in stops if text[:end].endswith(stop)]
        if done:
            return text[: end - max(map(len, done))]
    return text


@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    st.lists(st.text("ab", max_size=4), max_size=8),
)
def test_the_text_does_not_depend_on_how_it_is_cut(stops, pieces):
    assert let_through(stops, pieces)[0] == by_characters(stops, "".join(pieces))


@pytest.mark.parametrize("pieces", [["abc"], ["a", "b", "c"]])
def test_of_two_stop_texts_the_one_complete_first_wins(pieces):
    assert let_through(["abc", "b"], pieces) == ("a", "b")
