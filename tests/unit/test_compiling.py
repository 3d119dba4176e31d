"""Blocks are compiled where that is asked for, and unasked in long runs on a GPU alone."""

from types import SimpleNamespace

import pytest

from lorakit.workflows import compiling


def run(device="cuda", steps=10, sharded=False, packed=True):
    return SimpleNamespace(
        accelerator=SimpleNamespace(device=SimpleNamespace(type=device)),
        plan=SimpleNamespace(total=lambda: steps),
        sharded=sharded,
        packed=packed,
        frontier=None,
        bare_model=SimpleNamespace(modules=lambda: ()),
    )


ROWS = SimpleNamespace(
    report=SimpleNamespace(tokens=600, rows=20),
    tokens_per_step=None,
    rows_per_step=4,
    checkpoint=SimpleNamespace(family=SimpleNamespace(kind="decoder")),
)
BUILT = SimpleNamespace(base_parameters=1000, trainable=SimpleNamespace(trained=0))


def asking(compile):
    return SimpleNamespace(speed=SimpleNamespace(compile=compile), method=SimpleNamespace())


def test_operations_are_four_a_frozen_weight_and_token_and_six_where_all_learn():
    # 30 tokens a row, 4 rows a step, 10 steps.
    assert compiling._operations(run(), ROWS, BUILT) == 4 * 1000 * 30 * 4 * 10
    full = SimpleNamespace(base_parameters=1000, trainable=SimpleNamespace(trained=1000))
    assert compiling._operations(run(), ROWS, full) == 6 * 1000 * 30 * 4 * 10


@pytest.mark.parametrize(
    ("asked", "device", "steps"), [(False, "cuda", 10**12), ("auto", "cpu", 10**12), ("auto", "cuda", 10)]
)
def test_nothing_is_compiled_or_said_where_it_is_switched_off_or_does_not_pay(asked, device, steps):
    assert compiling.compiled_of(run(device, steps), asking(asked), ROWS, BUILT) == ((), "")


@pytest.mark.parametrize(
    ("changes", "kind", "width", "why"),
    [
        ({"sharded": True}, "decoder", None, "spread over several processes"),
        ({}, "decoder", "int8", "a base in int8"),
        ({}, "encoder_decoder", None, "a bias of another size"),
    ],
)
def test_what_speaks_against_it_is_said(changes, kind, width, why):
    rows = SimpleNamespace(checkpoint=SimpleNamespace(family=SimpleNamespace(kind=kind)))
    assert why in compiling._unfit(run(**changes), rows, [object()], True, width)


def test_without_blocks_there_is_nothing_to_compile():
    assert "none of them" in compiling._unfit(run(), ROWS, [], True, None)
