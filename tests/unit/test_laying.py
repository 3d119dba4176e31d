"""On a GPU rows are packed where its kernel attends them, and padded elsewhere, with the reason."""

from types import SimpleNamespace

import pytest
import torch

from lorakit import families
from lorakit.fast import varlen_kernel
from lorakit.workflows.laying import _misses_kernel

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _a_gpu_with_the_kernel(monkeypatch):
    monkeypatch.setattr(varlen_kernel, "lacks", lambda _: "")


def missed(model_type="gpt2", dropout=0.0, device=GPU, precision="bfloat16", **config):
    family = families.of(model_type, (), {})
    rows = SimpleNamespace(checkpoint=SimpleNamespace(config={"n_embd": 768, "n_head": 12, **config}, family=family))
    return _misses_kernel(rows, dropout, device, precision)


def test_rows_are_packed_where_nothing_speaks_against_it():
    assert missed(attn_pdrop=0.1) == ""


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"precision": "float32"}, "not float32"),
        ({"model_type": "t5"}, "takes no bias"),
        ({"attn_logit_softcapping": 50.0}, "bounds no scores"),
        ({"dropout": 0.1}, "drops no attention weights"),
        ({"dropout": None, "attn_pdrop": 0.1}, "drops no attention weights"),
        ({"n_head": 2}, "no heads of 384 features"),
        ({"head_dim": 20}, "no heads of 20 features"),
    ],
)
def test_what_the_kernel_does_not_compute_is_padded_with_the_reason(asked, why):
    assert why in missed(**asked)


def test_without_the_kernel_rows_are_padded(monkeypatch):
    monkeypatch.setattr(varlen_kernel, "lacks", lambda _: "this GPU is older")
    assert missed() == "this GPU is older"


def test_a_processor_packs_without_a_kernel():
    assert missed(device=torch.device("cpu"), precision="float32") == ""
