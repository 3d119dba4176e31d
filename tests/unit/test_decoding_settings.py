import pytest

from lorakit.errors import LorakitError
from lorakit.generation.settings import DecodingSettings


def refusal(**options):
    with pytest.raises(LorakitError) as caught:
        DecodingSettings(**options)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": -1}, "top_k is -1; must be at least 1."),
        ({"top_p": 0.0}, "top_p is 0.0; must be above 0."),
        ({"min_p": 1.5}, "min_p is 1.5; must be at most 1."),
        ({"temperature": float("nan")}, "temperature is nan; must be a finite number."),
        ({"max_new_tokens": "many"}, "max_new_tokens is 'many'; must be a whole number."),
        ({"num_beams": 65}, "num_beams is 65; must be at most 64."),
        ({"stop": "\n"}, "stop is '\\n'; must be a list of texts."),
        ({"top_q": 1}, "top_q is no decoding option. Did you mean 'top_p'?"),
        (
            {"top_k": 3},
            "top_k has no effect while temperature is 0 (nothing is drawn); set temperature above 0, such as 1.",
        ),
    ],
)
def test_a_fault_is_told_in_plain_words(options, said):
    assert refusal(**options) == [said]


def test_64_beams_are_accepted():
    assert DecodingSettings(num_beams=64).num_beams == 64


def test_every_fault_is_listed():
    assert len(refusal(top_k=0, seed=-1)) == 2
