"""The arithmetic of the benchmarks, their page, and that nothing is measured twice; no arm is run."""

import json
import math
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from benchmarks.speed import arithmetic, harness, materials, on_gpu, page, roofline
from benchmarks.speed.row import Arm, Growth, Outcome, Row
from benchmarks.speed.rows import FILES, row_of
from benchmarks.speed.work import Work, filled

OUTCOME = Outcome(seconds=2.0, processor_seconds=4.0, work=100.0, peak_bytes=300_000_000)


def measured(arm, seconds, **changes):
    """Return an arm's measurements, a round each."""
    return [
        harness.Measurement("x", arm, number, replace(OUTCOME, seconds=time, **changes), foreign=0.25)
        for number, time in enumerate(seconds)
    ]


def row(*names, **changes):
    """Return a row whose arms are never run."""
    values = {"name": "x", "title": "X", "work": "Some work.", "arms": tuple(Arm(name, never) for name in names)}
    return Row(**{**values, "prepare": lambda root: None, **changes})


def never(root):
    raise AssertionError("an arm was run")


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    found = arithmetic.ratio(measured("b", [1.0, 5.0, 2.0]), measured("a", [2.0, 20.0, 2.0]), arithmetic.speed)
    assert found == arithmetic.Ratio(median=2.0, least=1.0, most=4.0)


def test_rounds_that_only_one_of_two_arms_has_are_left_out_of_their_ratio():
    found = arithmetic.ratio(measured("b", [1.0, 100.0]), measured("a", [3.0]), arithmetic.speed)
    assert found == arithmetic.Ratio(3.0, 3.0, 3.0)
    assert arithmetic.ratio(measured("b", [1.0]), [], arithmetic.speed) is None


def test_speed_is_work_by_time_of_the_wall_or_of_the_processor():
    (one,) = measured("a", [2.0])
    assert (arithmetic.speed(one), arithmetic.processor_speed(one), arithmetic.peak(one)) == (50.0, 25.0, 3e8)


def test_a_table_tells_medians_ratios_with_their_spread_and_leaves_empty_columns_out():
    arms = {"a": measured("a", [2.0, 4.0]), "b": measured("b", [1.0, 1.0], peak_bytes=150_000_000)}
    assert page.compared(row("a", "b"), arms) == (
        "| arm | seconds | core-seconds | times as fast | by core-seconds | peak memory | of the first | others |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| a | 3 | 4 | 1.00 | 1.00 | 300 MB | 1.00 | 0.25 |\n"
        "| b | 1 | 4 | 3.00 (2.00–4.00) | 1.00 | 150 MB | 0.50 | 0.25 |\n"
    )


def test_a_table_says_which_arms_made_something_else():
    arms = {
        "a": measured("a", [1.0], output="1"),
        "b": measured("b", [1.0], output="1"),
        "c": measured("c", [1.0], output="2"),
        "d": measured("d", [1.0]),
    }
    lines = page.compared(row(*arms), arms).splitlines()
    assert [line.split(" | ")[-2] for line in lines[2:]] == ["the same", "the same", "another", ""]


def test_a_loss_is_told_with_its_distance_from_that_of_the_first_arm():
    arms = {"a": measured("a", [1.0], loss=2.0), "b": measured("b", [1.0], loss=1.98)}
    lines = page.compared(row(*arms), arms).splitlines()
    assert [line.split(" | ")[-2] for line in lines[2:]] == ["2.0000", "1.9800 (-1.00%)"]


def test_an_arm_is_measured_against_the_first_of_the_row_and_against_nothing_where_that_one_failed():
    table = page.compared(row("a", "b"), {"b": measured("b", [1.0])})
    assert table.splitlines()[0] == "| arm | seconds | core-seconds | peak memory | others |"


def test_what_grows_is_told_with_the_peer_and_lorakit_side_by_side():
    growth = Growth(axis="rank", values=(2, 4), lines=("peer", "own"))
    arms = {"peer · 2": measured("peer", [8.0]), "own · 2": measured("own", [2.0]), "own · 4": measured("own", [2.0])}
    assert page.grown(growth, arms).splitlines()[2:] == ["| 2 | 8 | 2 | 4.00 | 300 MB | 300 MB | 1.00 |"]


def test_the_page_leaves_out_rows_that_were_not_measured():
    told = [(row("a"), {"a": measured("a", [1.0])}), (row("a", title="Y"), {})]
    text = page.page(told, {"processor": "P"})
    assert "## X" in text
    assert "| processor | P |" in text
    assert "## Y" not in text


@pytest.fixture
def started(monkeypatch):
    """Return the list of arms that were started; arms called `bad` fail."""
    found = []

    def worker(python, row, arm, folder):
        found.append(arm)
        if arm == "bad":
            raise ChildProcessError("it broke")
        return vars(OUTCOME), 0.5

    monkeypatch.setattr(harness, "_worker", worker)
    return found


def test_arms_take_turns_after_the_preparation(started, tmp_path):
    journal = harness.Journal(tmp_path / "found.jsonl")
    assert len(list(harness.run(row("a", "b"), 2, tmp_path, journal))) == 4
    assert started == ["", "a", "b", "a", "b"]


def test_what_was_measured_before_an_interruption_is_not_measured_again(started, tmp_path):
    file = tmp_path / "found.jsonl"
    wanted = harness.run(row("a", "b"), 2, tmp_path, harness.Journal(file))
    next(wanted)
    with file.open("a") as lines:
        lines.write('{"stamp": "cut sho')
    started.clear()
    journal = harness.Journal(file)
    list(harness.run(row("a", "b"), 2, tmp_path, journal))
    assert started == ["", "b", "a", "b"]
    assert harness.Journal(file).of("x") == journal.of("x")
    assert [one.round for one in journal.of("x")["a"]] == [0, 1]


def test_what_other_code_or_another_machine_measured_is_measured_again(started, tmp_path, monkeypatch):
    file = tmp_path / "found.jsonl"
    list(harness.run(row("a"), 1, tmp_path, harness.Journal(file)))
    monkeypatch.setattr(harness, "stamp", lambda: "another")
    assert harness.Journal(file).of("x") == {}


def test_a_row_that_cannot_be_prepared_is_told_and_its_arms_are_not_started(monkeypatch, tmp_path):
    def worker(python, row, arm, folder):
        assert arm == ""
        raise ChildProcessError("disk full")

    monkeypatch.setattr(harness, "_worker", worker)
    lines = list(harness.run(row("a"), 2, tmp_path, harness.Journal(tmp_path / "found.jsonl")))
    assert lines == ["FAILED  x  preparation: disk full"]


def test_an_arm_that_fails_is_told_once_and_the_others_go_on(started, tmp_path):
    lines = list(harness.run(row("bad", "a"), 2, tmp_path, harness.Journal(tmp_path / "found.jsonl")))
    assert [line.startswith("FAILED  x  bad: it broke") for line in lines] == [True, False, False]
    assert started == ["", "bad", "a", "a"]


@pytest.mark.parametrize("name", FILES)
def test_a_row_is_found_by_its_name_and_its_arms_by_theirs(name):
    found = row_of(name)
    assert found.name == name
    assert len({arm.name for arm in found.arms}) == len(found.arms) > 1


def test_each_value_of_what_grows_has_an_arm_of_both_sides():
    for found in map(row_of, FILES):
        if found.growth is not None:
            wanted = {f"{line} · {value}" for line in found.growth.lines for value in found.growth.values}
            assert {arm.name for arm in found.arms} == wanted


def test_pictures_are_drawn_where_lorakit_is_not_installed():
    without = "import sys; sys.modules['lorakit'] = None; import benchmarks.speed.plots"
    done = subprocess.run([sys.executable, "-c", without], cwd=harness.ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_lengths_are_log_normal_and_their_mean_is_what_was_asked_for():
    found = materials.lengths(1000, 96, random.Random(0))
    assert statistics.mean(found) == pytest.approx(96, rel=0.03)
    assert statistics.median(found) == pytest.approx(96 / 2.718281828 ** (0.8**2 / 2), rel=0.02)
    assert (min(found), max(found)) == (8, 500)


def test_the_share_of_real_tokens_is_that_of_batches_sorted_by_length():
    # Batches [8, 6] and [4, 2]: 20 real tokens in 2 * 8 + 2 * 4 places.
    assert filled([2, 8, 4, 6], 2) == pytest.approx(20 / 24)


def test_a_folder_that_could_not_be_filled_is_not_there(tmp_path):
    def broken(folder: Path):
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        materials.made(tmp_path / "model", broken)
    assert list(tmp_path.iterdir()) == []


LLAMA = Work(shape=materials.Shape("llama", 2, 64), method="lora", rows=4, rows_per_step=4, learning_rate=1e-3)


def test_the_row_of_a_gpu_refuses_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a CUDA GPU"):
        on_gpu.prepare(LLAMA, tmp_path)


def test_operations_are_four_a_frozen_weight_and_token_and_those_of_the_output_layer_of_labels_alone(tmp_path):
    rows = [json.loads(line) for line in LLAMA.data("train", tmp_path).read_text("utf-8").splitlines()]
    answers = sum(len(row["completion"].split()) + 1 for row in rows)
    tokens = answers + sum(len(row["prompt"].split()) for row in rows)
    blocks = 2 * (4 * 64 * 64 + 3 * 64 * 256)
    assert roofline.operations(LLAMA, tmp_path) == 4 * (blocks * tokens + 64 * materials.VOCABULARY * answers)


def test_products_of_an_encoder_decoder_are_counted_by_the_tokens_that_each_of_its_layers_reads(tmp_path):
    work = Work(shape=materials.Shape("t5", 2, 64), method="full", rows=4, rows_per_step=4, learning_rate=1e-3)
    rows = [json.loads(line) for line in work.data("train", tmp_path).read_text("utf-8").splitlines()]
    read, written = (sum(len(row[part].split()) + 1 for row in rows) for part in ("source", "target"))
    square, fed = 64 * 64, 2 * 64 * 256
    encoder, decoder, crossed = read * (4 * square + fed), written * (4 * square + fed), (read + written) * 2 * square
    products = 2 * (encoder + decoder + crossed) + 64 * materials.VOCABULARY * written
    assert roofline.operations(work, tmp_path) == 6 * products


def test_products_of_an_encoder_are_counted_for_more_tokens_than_one_text_can_have(tmp_path):
    work = Work(shape=materials.Shape("bert", 2, 64), method="lora", rows=16, rows_per_step=4, learning_rate=1e-3)
    rows = [json.loads(line) for line in work.data("train", tmp_path).read_text("utf-8").splitlines()]
    tokens = sum(len(row["text"].split()) + 2 for row in rows)
    once = 64 * 64 + 64 * materials.LABELS
    assert tokens > 512
    assert roofline.operations(work, tmp_path) == 4 * (2 * tokens * (4 * 64 * 64 + 2 * 64 * 256) + once)


def test_products_of_a_gpt_2_are_counted_as_those_of_other_decoders(tmp_path):
    work = replace(LLAMA, shape=materials.Shape("gpt2", 2, 64))
    rows = [json.loads(line) for line in work.data("train", tmp_path).read_text("utf-8").splitlines()]
    answers = sum(len(row["completion"].split()) + 1 for row in rows)
    tokens = answers + sum(len(row["prompt"].split()) for row in rows)
    blocks = 2 * (4 * 64 * 64 + 2 * 64 * 256)
    assert roofline.operations(work, tmp_path) == 4 * (blocks * tokens + 64 * materials.VOCABULARY * answers)


@pytest.mark.parametrize("arm", ["peer", "lorakit"])
def test_arms_of_a_gpu_tell_the_share_of_the_matrix_rate(tmp_path, monkeypatch, request, arm):
    monkeypatch.setattr(roofline, "matrix_rate", lambda precision: 1e6)
    # Trainer leaves its precision to whatever comes after it in the process.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    request.addfinalizer(lambda: AcceleratorState._reset_state(reset_partial_state=True))
    work = replace(LLAMA, targets=("q_proj",))
    found = on_gpu.trainer(work, "sdpa", tmp_path) if arm == "peer" else on_gpu.lorakit(work, {}, tmp_path)
    share = roofline.operations(work, tmp_path) / found.seconds / 1e6
    assert found.note.startswith(f"{share:.0%} of the 0.001 GFLOP/s")
    assert found.loss == pytest.approx(math.log(materials.VOCABULARY), rel=0.05)
