"""Attention that keeps its states in bfloat16 equals the plain one over widened states, bit for bit."""

import pytest
import torch
from torch.nn import functional

from lorakit.adapters.bundle import open_target
from lorakit.fast import varlen, widened
from runs import train

LENGTHS = (9, 12, 3)


def states(seen=LENGTHS):
    torch.manual_seed(0)
    widths = (sum(LENGTHS), sum(seen), sum(seen))
    return [torch.randn(1, 2, width, 8).bfloat16().requires_grad_() for width in widths]


def plain(query, key, value, read, seen, causal, scaling):
    """What torch computes of each segment, widened before."""
    split = [each.float().split(lengths, 2) for each, lengths in ((query, read), (key, seen), (value, seen))]
    pieces = [
        functional.scaled_dot_product_attention(*part, is_causal=causal, scale=scaling)
        for part in zip(*split, strict=True)
    ]
    return torch.cat(pieces, dim=2)


@pytest.mark.parametrize("scaling", [None, 0.7])
@pytest.mark.parametrize(("causal", "seen"), [(True, LENGTHS), (False, LENGTHS), (False, (4, 6, 5))])
def test_scores_and_slopes_are_those_of_widened_states(causal, seen, scaling):
    found = []
    for attend in (widened.attend, plain):
        given = states(seen)
        attended = attend(*given, LENGTHS, seen, causal, scaling)
        attended.square().sum().backward()
        found.append([attended.detach(), *(each.grad for each in given)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_packed_attention_on_a_processor_keeps_no_state_in_float32():
    kept = []
    given = states()
    segments = {sum(LENGTHS): LENGTHS}
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        varlen.attend(torch.nn.Module(), *given, None, is_causal=True, segment_lengths=segments)
    narrow = [each for each in kept if each.shape == given[0].shape]
    assert [each.dtype for each in narrow] == [torch.bfloat16] * 3
    wide = sum(each.numel() for each in kept if each.dtype == torch.float32)
    assert wide <= given[0].numel() + 2 * sum(LENGTHS)  # Outputs, and one number a head and position.


def test_switched_off_it_keeps_them_in_float32_and_gives_the_same():
    segments, layer = {sum(LENGTHS): LENGTHS}, torch.nn.Module()
    found, kept = [], []
    for off in (False, True):
        if off:
            widened.switch_off(layer)
        given = states()
        with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
            attended, _ = varlen.attend(layer, *given, None, is_causal=True, segment_lengths=segments)
        attended.float().square().sum().backward()
        found.append([attended.detach(), *(each.grad for each in given)])
        assert any(each.dtype == torch.bfloat16 for each in kept) is not off
        kept.clear()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, ["widened"]),
        ({"model__add_tokens": ["Dahlia"]}, ["widened"]),
        ({"speed__widened": False}, ["no widened: switched off"]),
        ({"train__dtype": "float32"}, []),
        ({"speed__varlen": False}, []),
        ({"method": "full", "train__dropout": 0.1}, []),
    ],
)
def test_a_run_names_it_where_a_step_goes_that_way(tmp_path, gpt2_folder, pairs_file, settings, named):
    given = {"train__dtype": "bfloat16", "train__max_steps": 1, **settings}
    folder = train(tmp_path / "run", gpt2_folder, pairs_file, **given).folder
    assert [name for name in open_target(str(folder)).manifest.speed if "widened" in name] == named


@pytest.mark.parametrize("window", [3, 12])
def test_a_window_that_hides_something_is_honoured(window):
    given = states()
    asked = {"is_causal": True, "segment_lengths": {sum(LENGTHS): LENGTHS}, "sliding_window": window}
    found, _ = varlen.attend(torch.nn.Module(), *given, None, **asked)
    exact, _ = varlen.attend(torch.nn.Module(), *(each.double() for each in given), None, **asked)
    assert torch.allclose(found.double(), exact, atol=2e-2)
