"""Which rows make a step: a property of lengths, seed and epoch alone, whoever computes it and in which pieces."""

from collections import Counter

import numpy as np
import pytest

from lorakit.data.batching import PADDING, FixedPlan, StreamPlan, filled, micro_batches, share
from lorakit.types import Example
from runs import random_examples


def numbers(examples):
    return [example.row for example in examples]


@pytest.mark.parametrize("how", [{"rows_per_step": 4}, {"tokens_per_step": 40}])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 16, 17])
def test_every_row_is_learned_exactly_once_an_epoch(size, how):
    examples = random_examples([3 + 7 * number % 30 for number in range(size)])
    plan = FixedPlan(examples, seed=3, epochs=3, **{"tokens_per_step": None, **how})
    seen = {}
    for epoch, step in plan.steps():
        seen.setdefault(epoch, []).extend(numbers(step))
    assert [Counter(rows) for rows in seen.values()] == [Counter(range(size))] * 3


def test_the_order_is_drawn_from_seed_and_epoch_alone():
    examples = random_examples([5] * 20)
    plan = FixedPlan(examples, seed=7, epochs=2, rows_per_step=1)
    np.random.seed(123)
    order = [row for epoch, step in plan.steps() for row in numbers(step)]
    expected = [int(row) for epoch in (0, 1) for row in np.random.default_rng((7, epoch)).permutation(20)]
    assert order == expected
    assert order[:20] != order[20:]
    assert order != [row for _, step in FixedPlan(examples, 8, 2, rows_per_step=1).steps() for row in numbers(step)]


@pytest.mark.parametrize("limits", [{}, {"max_steps": 5}, {"max_steps": 1000}])
@pytest.mark.parametrize("how", [{"rows_per_step": 3}, {"tokens_per_step": 50}])
def test_the_number_of_steps_is_told_beforehand(how, limits):
    plan = FixedPlan(random_examples([9, 30, 4, 12, 22, 8, 17]), 0, 2, **{"tokens_per_step": None, **how}, **limits)
    assert len(list(plan.steps())) == plan.total()


@pytest.mark.parametrize("skip", range(7))
def test_steps_that_are_skipped_leave_the_others_as_they_were(skip):
    plan = FixedPlan(random_examples([9, 30, 4, 12, 22, 8, 17]), 0, 2, rows_per_step=2)
    whole = [(epoch, numbers(step)) for epoch, step in plan.steps()]
    assert [(epoch, numbers(step)) for epoch, step in plan.steps(skip)] == whole[skip:]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
def test_processes_share_the_rows_of_a_step_without_a_loss_or_a_double(world, size):
    examples = random_examples([1 + 11 * number % 40 for number in range(size)])
    shares = [numbers(share(examples, rank, world)) for rank in range(world)]
    assert sorted(row for rows in shares for row in rows) == list(range(size))


def test_shares_are_about_equal_in_tokens():
    examples = random_examples([1 + 11 * number % 40 for number in range(40)])
    loads = [sum(map(len, share(examples, rank, 3))) for rank in range(3)]
    assert max(loads) - min(loads) <= 40


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("budget", [1, 10, 33, 64, 10**6])
def test_micro_batches_hold_the_rows_of_the_step_within_the_budget(budget, packed):
    examples = random_examples([5, 13, 2, 30, 9, 21, 7, 16])
    batches = micro_batches(examples, budget, packed)
    assert sorted(row for batch in batches for row in numbers(batch)) == list(range(8))
    for batch in batches:
        computed = sum(map(len, batch)) if packed else len(batch) * max(map(len, batch))
        assert computed <= budget or len(batch) == 1


def test_rows_longer_than_the_budget_stand_alone():
    assert filled([3, 50, 4, 4, 50], 10) == [slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 5)]


def test_buckets_pad_less_than_the_order_of_reading():
    examples = random_examples([2, 60] * 8)
    padding = sum(
        len(batch) * max(map(len, batch)) - sum(map(len, batch)) for batch in micro_batches(examples, 120, packed=False)
    )
    assert padding == 0


def test_buckets_of_sources_and_targets_are_padded_by_no_more_than_a_bucket_costs():
    draw = np.random.default_rng(0)
    examples = [
        Example(np.zeros(read, np.int32), np.zeros(1, np.int32), number, target=np.zeros(written, np.int32))
        for number, (read, written) in enumerate(draw.integers(1, 200, (60, 2)).tolist())
    ]
    batches = micro_batches(examples, 2048, packed=False)
    widths = [max(len(one.ids) for one in batch) + max(len(one) - len(one.ids) for one in batch) for batch in batches]
    computed = [len(batch) * width for batch, width in zip(batches, widths, strict=True)]
    assert max(computed) <= 2048
    assert len(batches) < 60
    assert max(size - sum(map(len, batch)) for size, batch in zip(computed, batches, strict=True)) <= PADDING


def a_stream(**changes):
    examples = random_examples([4 + 5 * number % 23 for number in range(23)])
    settings = {"seed": 5, "max_steps": 19, "buffer": 6, "tokens_per_step": None, "rows_per_step": 4, **changes}
    return StreamPlan(read=lambda _: iter(examples), **settings)


@pytest.mark.parametrize("how", [{}, {"rows_per_step": None, "tokens_per_step": 45}])
@pytest.mark.parametrize("skip", [0, 1, 5, 6, 11, 18, 19])
def test_a_stream_goes_on_where_it_was_left(skip, how):
    whole = [(epoch, numbers(step)) for epoch, step in a_stream(**how).steps()]
    assert len(whole) == 19
    assert [(epoch, numbers(step)) for epoch, step in a_stream(**how).steps(skip)] == whole[skip:]


def test_a_stream_gives_every_row_once_an_epoch_and_shuffles_each_anew():
    epochs = {}
    for epoch, step in a_stream(max_steps=18).steps():
        epochs.setdefault(epoch, []).extend(numbers(step))
    assert [sorted(rows) for rows in epochs.values()] == [list(range(23))] * 3
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(range(23))


def test_a_stream_without_rows_ends():
    assert list(StreamPlan(lambda _: iter(()), 0, 5, 4).steps()) == []


def test_a_stream_tells_its_reader_the_epoch():
    asked = []

    def read(epoch):
        asked.append(epoch)
        return iter(random_examples([5, 5]))

    list(StreamPlan(read, 0, 3, 4, None, 2).steps())
    assert asked == [0, 1, 2]


def test_more_steps_than_the_epochs_hold_go_through_the_rows_again():
    plan = FixedPlan(random_examples([4] * 6), seed=0, epochs=1, tokens_per_step=None, rows_per_step=2, max_steps=7)
    taken = [(epoch, len(rows)) for epoch, rows in plan.steps()]
    assert taken == [(0, 2), (0, 2), (0, 2), (1, 2), (1, 2), (1, 2), (2, 2)]
    assert plan.total() == 7


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("how", [{"rows_per_step": 4}, {"tokens_per_step": 40}, {"tokens_per_step": 10**9}])
def test_a_step_is_known_to_take_all_rows_where_an_epoch_is_one_step(size, how):
    plan = FixedPlan(random_examples([10] * size), 0, 1, **{"tokens_per_step": None, **how})
    assert plan.whole == (len(plan.epoch(0)) == 1)
