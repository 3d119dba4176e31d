import pytest
from hypothesis import given
from hypothesis import strategies as st

import lorakit
from lorakit.errors import LorakitError
from lorakit.generation.dealing import by_length
from lorakit.generation.settings import DecodingSettings


@given(st.lists(st.integers(1, 60), max_size=30), st.integers(1, 3))
def test_batches_hold_each_prompt_once_and_keep_the_budget(lengths, samples):
    settings = DecodingSettings(temperature=1.0, num_samples=samples, max_new_tokens=10)
    batches = by_length(lengths, settings, budget=200)
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    assert all(
        len(batch) == 1 or len(batch) * samples * (max(lengths[number] for number in batch) + 10) <= 200
        for batch in batches
    )


def test_the_longest_prompt_is_in_the_first_batch():
    assert by_length([3, 50, 7], DecodingSettings(max_new_tokens=10), budget=60)[0] == [1]


def test_half_of_a_character_pair_is_no_prompt(gpt2_folder):
    with pytest.raises(LorakitError, match=r"U\+D800 at character 2"):
        lorakit.generate(gpt2_folder, "a\ud800")


def test_an_unknown_device_names_the_known_ones(gpt2_folder):
    with pytest.raises(LorakitError, match='device is "gpu"; must be auto, cpu, cuda or mps'):
        lorakit.generate(gpt2_folder, "a", device="gpu")


def test_a_device_is_checked_before_the_target_is_looked_for():
    with pytest.raises(LorakitError, match="Did you mean 'cpu'"):
        lorakit.generate("no-such-model", "a", device="tpu")


def test_prompts_far_apart_share_no_batch():
    batches = by_length([1] * 300, DecodingSettings(max_new_tokens=1), budget=10_000)
    assert [(min(batch), max(batch)) for batch in batches] == [(0, 127), (128, 255), (256, 299)]


def test_the_batches_of_a_call_do_not_change_what_is_drawn(gpt2_folder, monkeypatch):
    prompts = ["one", "two words", "three words here"]
    settings = DecodingSettings(temperature=1.0, max_new_tokens=8)
    together = [answer.text for answer in lorakit.generate(gpt2_folder, prompts, settings)]
    monkeypatch.setattr("lorakit.workflows.generating.by_length", lambda lengths, _: [[2], [0], [1]])
    assert [answer.text for answer in lorakit.generate(gpt2_folder, prompts, settings)] == together


@pytest.mark.parametrize(("least", "drafts"), [(1, True), (20_000_000, False)])
def test_small_models_write_without_drafts_in_8_bits(gpt2_folder, monkeypatch, least, drafts):
    from lorakit.fast import products
    from lorakit.workflows import generating, speeding

    monkeypatch.setattr(products, "has_vnni", lambda: True)
    monkeypatch.setattr(speeding, "_LEAST_WEIGHTS", least)
    assert (generating.open_writer(gpt2_folder, device="cpu").paths.drafter is not None) is drafts
