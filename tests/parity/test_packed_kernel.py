"""What torch's kernel for packed rows is given on a GPU, held against attention segment by segment.

The kernel itself needs a GPU (tests/gpu); here its documented meaning stands in for it, written down once more.
"""

import math

import pytest
import torch

from lorakit.fast import varlen, varlen_kernel

LENGTHS = (9, 12, 3)


def documented(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """`varlen_attn` as the documentation of torch 2.13 says: shapes (T, H, E), borders, a window (left, right)."""
    groups = query.shape[1] // key.shape[1]
    assert enable_gqa == (groups > 1)
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    pieces = []
    for begin, end, first, last in zip(cu_seq_q[:-1], cu_seq_q[1:], cu_seq_k[:-1], cu_seq_k[1:], strict=True):
        assert end - begin <= max_q
        assert last - first <= max_k
        keys, values = (each[first:last].repeat_interleave(groups, 1) for each in (key, value))
        scores = torch.einsum("the,uhe->htu", query[begin:end], keys) * (scale or 1 / math.sqrt(query.shape[-1]))
        ahead = torch.arange(len(keys))[None] - torch.arange(int(end - begin))[:, None]
        left, right = window_size
        hidden = (ahead > right if right >= 0 else ahead > len(keys)) | (-ahead > (left if left >= 0 else len(ahead)))
        pieces.append(torch.einsum("htu,uhe->the", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    return torch.cat(pieces)


@pytest.mark.parametrize("scaling", [None, 0.7])
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_the_kernel_is_asked_for_what_segment_by_segment_computes(monkeypatch, heads, causal, window, scaling):
    torch.manual_seed(0)
    many, few = heads
    projected = [torch.randn(1, count, sum(LENGTHS), 8) for count in (many, few, few)]
    given = {"is_causal": causal, "segment_lengths": {sum(LENGTHS): LENGTHS}, "sliding_window": window}
    apart, _ = varlen.attend(torch.nn.Module(), *projected, None, scaling=scaling, **given)
    monkeypatch.setattr(varlen, "_kernel_fits", lambda *_: True)
    monkeypatch.setattr(varlen_kernel, "found", lambda: documented)
    at_once, _ = varlen.attend(torch.nn.Module(), *projected, None, scaling=scaling, **given)
    assert torch.allclose(at_once, apart, atol=1e-5)


def test_from_one_row_to_another_of_other_lengths(monkeypatch):
    torch.manual_seed(0)
    query, (key, value) = torch.randn(1, 2, 24, 8), torch.randn(2, 1, 2, 15, 8)
    given = {"is_causal": False, "segment_lengths": {24: LENGTHS, 15: (4, 6, 5)}}
    apart, _ = varlen.attend(torch.nn.Module(), query, key, value, None, **given)
    monkeypatch.setattr(varlen, "_kernel_fits", lambda *_: True)
    monkeypatch.setattr(varlen_kernel, "found", lambda: documented)
    at_once, _ = varlen.attend(torch.nn.Module(), query, key, value, None, **given)
    assert torch.allclose(at_once, apart, atol=1e-5)


def test_on_a_processor_the_kernel_is_never_asked():
    x = torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16)
    how = varlen._How(dropout=0.0, scaling=None, causal=True, window=None, softcap=None, bias=None)
    assert not varlen._kernel_fits(x, x, how)


def test_the_installed_kernel_takes_what_it_is_given():
    # Of torch 2.10 it does not, and segments are attended one by one there.
    recent = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11)
    assert varlen_kernel.found() is not None or not recent


def test_a_kernel_that_says_nothing_of_fewer_keys_gets_as_many_as_queries(monkeypatch):
    def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        return documented(
            query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size, enable_gqa=False
        )

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", older)
    varlen_kernel.found.cache_clear()
    torch.manual_seed(0)
    projected = [torch.randn(1, count, sum(LENGTHS), 8) for count in (4, 2, 2)]
    given = {"is_causal": True, "segment_lengths": {sum(LENGTHS): LENGTHS}}
    apart, _ = varlen.attend(torch.nn.Module(), *projected, None, **given)
    monkeypatch.setattr(varlen, "_kernel_fits", lambda *_: True)
    at_once, _ = varlen.attend(torch.nn.Module(), *projected, None, **given)
    varlen_kernel.found.cache_clear()
    assert torch.allclose(at_once, apart, atol=1e-5)
