import string

import pytest
import torch

from conftest import tiny_gpt2, tiny_llama, tiny_tokenizer
from lorakit.errors import LorakitError
from lorakit.generation.answers import Watcher
from lorakit.generation.beams import beam_search
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings

PROMPT = [5, 17, 200, 33]
NOBODY = Watcher()
MODELS = {"gpt2": tiny_gpt2, "llama": tiny_llama}


def greedy(model, prompt=PROMPT, eos_ids=(), tokenizer=None, watcher=NOBODY, **options):
    return decode(model, [prompt], DecodingSettings(**options), eos_ids, tokenizer, watcher=watcher)[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_last_position_ends_an_answer_without_an_error(name):
    answer = greedy(MODELS[name](), max_new_tokens=500)
    # 64 positions are read; the token after the last of them is still written.
    assert (answer.finish_reason, len(PROMPT) + len(answer.ids)) == ("context", 65)


def test_beams_end_at_the_last_position_too():
    settings = DecodingSettings(num_beams=2, max_new_tokens=500)
    answer = beam_search(tiny_gpt2(), PROMPT, settings, ())
    assert (answer.finish_reason, len(PROMPT) + len(answer.ids)) == ("context", 65)


def test_max_new_tokens_is_told_as_length():
    answer = greedy(tiny_gpt2(), max_new_tokens=3)
    assert (answer.finish_reason, len(answer.ids)) == ("length", 3)


def test_a_prompt_longer_than_the_positions_is_refused_with_both_numbers():
    with pytest.raises(LorakitError, match="prompt 2 has 70 tokens, but this model reads at most 64"):
        decode(tiny_gpt2(), [PROMPT, [1] * 70], DecodingSettings(), ())


def test_an_empty_prompt_is_refused():
    with pytest.raises(LorakitError, match="no tokens"):
        decode(tiny_gpt2(), [[]], DecodingSettings(), ())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error_that_names_the_step(bad):
    model = tiny_gpt2()
    # The position first read to predict the third token.
    model.transformer.wpe.weight.data[len(PROMPT) + 1] = bad
    with pytest.raises(LorakitError, match="not finite at step 3"):
        greedy(model, max_new_tokens=10)


def test_a_stop_text_ends_the_answer_before_it():
    tokenizer = tiny_tokenizer()
    text = greedy(tiny_gpt2(), tokenizer=tokenizer, max_new_tokens=20).text
    middle = len(text) // 2
    stop = text[middle : middle + 4]
    answer = greedy(tiny_gpt2(), tokenizer=tokenizer, max_new_tokens=20, stop=[stop])
    assert (answer.text, answer.finish_reason) == (text[: text.index(stop)], "stop")


def test_a_stop_text_ends_a_beam_before_it():
    letters = list(string.ascii_letters)
    # A negative power favours short answers, so a beam that stopped is kept.
    settings = DecodingSettings(num_beams=2, max_new_tokens=12, stop=letters, length_penalty=-2.0)
    answer = beam_search(tiny_gpt2(), PROMPT, settings, (), tiny_tokenizer())
    assert answer.finish_reason == "stop"
    assert not set(letters) & set(answer.text)


def test_stop_texts_without_a_tokenizer_are_refused():
    with pytest.raises(LorakitError, match="tokenizer"):
        greedy(tiny_gpt2(), stop=["x"])


def test_the_end_of_sequence_token_is_counted_but_has_no_text():
    tokenizer = tiny_tokenizer()
    ids = greedy(tiny_gpt2(), max_new_tokens=8).ids
    answer = greedy(tiny_gpt2(), eos_ids={ids[4]}, tokenizer=tokenizer, max_new_tokens=8)
    end = ids.index(ids[4])
    assert answer.ids == ids[: end + 1]
    assert answer.text == tokenizer.decode([*PROMPT, *ids[:end]])[len(tokenizer.decode(PROMPT)) :]


def test_streamed_pieces_join_to_the_text():
    pieces = []
    watcher = Watcher(on_text=lambda prompt, sample, piece: pieces.append(piece))
    answer = greedy(tiny_gpt2(), tokenizer=tiny_tokenizer(), watcher=watcher, max_new_tokens=40)
    assert "".join(pieces) == answer.text
    assert len(pieces) > 5


def test_a_step_holds_the_most_probable_tokens_of_a_plain_forward():
    model = tiny_gpt2()
    step = greedy(model, watcher=Watcher(top=5), max_new_tokens=3).steps[2]
    with torch.inference_mode():
        ids = torch.tensor([[*PROMPT, *greedy(model, max_new_tokens=2).ids]])
        probabilities = model(ids).logits[0, -1].double().softmax(-1)
    best = probabilities.topk(5)
    assert [token for token, _ in step.candidates] == best.indices.tolist()
    assert [share for _, share in step.candidates] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert step.taken == best.indices[0]


def test_several_samples_stand_in_the_order_of_their_prompts():
    settings = DecodingSettings(temperature=1.0, num_samples=3, max_new_tokens=4)
    answers = decode(tiny_gpt2(), [PROMPT, [9]], settings, ())
    assert [(answer.prompt, answer.sample) for answer in answers] == [(p, s) for p in range(2) for s in range(3)]


def test_no_prompts_give_no_answers():
    assert decode(tiny_gpt2(), [], DecodingSettings(), ()) == []


def test_nothing_is_shown_of_a_step_whose_logits_overflow():
    """A position of 1e38 is read at the third step; the text of the two before it is all that comes out."""
    model, shown = tiny_gpt2(), []
    with torch.no_grad():
        model.transformer.wpe.weight[3] = 1e38
        model.transformer.wpe.weight[3, 0] = float("inf")
    watcher = Watcher(on_step=lambda _, __, step: shown.append(step.taken), top=1)
    with pytest.raises(LorakitError, match="not finite at step 3"):
        decode(model, [[1, 2]], DecodingSettings(max_new_tokens=8), set(), watcher=watcher)
    assert len(shown) == 2
