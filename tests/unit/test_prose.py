"""What of a documentation string is kept for pretraining: English prose, once."""

import pytest
from scripts.prose import Sieve, paragraphs

PROSE = "The folder is read once and kept in memory. Nothing of it is written back to the disk."


def kept(text):
    return list(paragraphs(text))


def test_wrapped_lines_become_one_paragraph():
    assert kept("The folder is read once and kept\nin memory. Nothing of it is written\nback to the disk.") == [PROSE]


@pytest.mark.parametrize(
    "code",
    [
        ">>> the(result) is not in the text\nand so it goes.",
        "```python\nThis is a comment that reads as if it were the text.\n```",
        "For example::\n\n    This is the code, and it is not to be read.",
        ".. code-block:: python\n\n    This is the code, and it is not to be read.",
        "x = f(y[i], z) + g(a_b, c_d) # and then it is done.",
        "See https://example.org for all that is known of it.",
        "Permission is granted to copy this under the license of the project.",
        "| This is | a table | of the | results. |",
    ],
)
def test_code_tables_addresses_and_licences_are_left_out(code):
    found = kept(f"{PROSE}\n\n{code}\n\n{PROSE}")
    assert [paragraph for paragraph in found if not paragraph.startswith("For example:")] == [PROSE, PROSE]


@pytest.mark.parametrize(
    "text",
    [
        "path : str\n    The folder is read once and kept in memory.",
        "path (`str`, *optional*): The folder is read once and kept in memory.",
        "- The folder is read once and kept in memory.",
        "Returns:\n    The folder is read once and kept in memory.",
        "    .. note:: The folder is read once and kept in memory.",
    ],
)
def test_of_a_parameter_a_list_and_a_note_the_sentence_is_kept(text):
    assert kept(text) == ["The folder is read once and kept in memory."]


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("the ``folder`` of", "the folder of"),
        (":class:`~torch.nn.Module` is the base of", "Module is the base of"),
        ("the [guide](guide.md) of", "the guide of"),
        ("the **best** of", "the best of"),
    ],
)
def test_markup_is_taken_off(markup, plain):
    assert kept(f"This is {markup} all that is here.") == [f"This is {plain} all that is here."]


def test_a_paragraph_passes_once_also_with_other_case_and_punctuation():
    sieve = Sieve()
    assert list(sieve.keep([PROSE, PROSE.upper(), PROSE.replace(".", "!")])) == [PROSE]


def test_a_paragraph_that_repeats_most_of_another_is_held_back():
    longer = f"{PROSE} And then it ends."
    assert list(Sieve().keep([PROSE, longer])) == [PROSE]
    assert len(list(Sieve().keep([PROSE, "It is written in another way, with other words, about other things."]))) == 2
