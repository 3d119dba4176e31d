"""Two processes on CPUs that DeepSpeed's ZeRO has cut take the steps of one that has all of it."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from every_objective import Workshop
from lorakit.training import state as states
from processes import FULL, MIXED, SETTINGS, TRAIN, assert_same_steps, launch, options, write_pairs
from resumed_in_zero import two_steps
from runs import metrics, train, weights
from steps_on_processes import every_objective

pytestmark = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="DeepSpeed is not installed: make test-deepspeed, or the extra deepspeed"
)
TESTS = Path(__file__).parents[1]


def zero(stage: int) -> dict[str, str]:
    """Variables of a launcher that was given a DeepSpeed config, under which no weight is whole for being small."""
    settings = {"stage": stage, "stage3_param_persistence_threshold": 0}
    return {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": json.dumps({"zero_optimization": settings}),
    }


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("rows") / "pairs.jsonl")


@pytest.mark.parametrize(
    ("kind", "stage", "changes", "tolerance"),
    [
        ("accelerate with deepspeed", 3, {}, 1e-5),
        ("torchrun", 1, {}, 1e-5),
        ("torchrun", 2, FULL, 1e-5),
        ("torchrun", 3, FULL, 1e-5),
        ("torchrun", 2, MIXED, 1e-2),
        ("torchrun", 3, MIXED, 1e-2),
    ],
    ids=["lora-by-accelerate", "lora-1", "full-2", "full-3", "bfloat16-2", "bfloat16-3"],
)
def test_two_processes_in_zero_take_the_steps_of_one(tmp_path, gpt2_folder, pairs, kind, stage, changes, tolerance):
    """By Accelerate small weights stay whole on each process, as DeepSpeed has it without a config."""
    settings = {**SETTINGS, **changes}
    expected = train(tmp_path / "alone", gpt2_folder, pairs, **settings).folder
    output = tmp_path / "of two"
    variables = zero(stage) if kind == "torchrun" else {}
    finished = launch(kind, *TRAIN, *options(gpt2_folder, pairs, **settings), "-o", output, **variables)
    assert finished.returncode == 0, finished.stderr[-3000:]
    said = finished.stdout.splitlines()
    assert said[-1] == str(output)
    # Accelerate's launcher loads DeepSpeed itself, and says so.
    assert kind != "torchrun" or len(said) == 1
    assert f"zero-{stage} over 2 processes" in json.loads((output / "manifest.json").read_text())["speed"]
    assert_same_steps(output, expected, tolerance)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_signal_to_one_process_in_zero_stops_both_and_they_resume_bit_for_bit(tmp_path, gpt2_folder, pairs, stage):
    finished = launch("torchrun", TESTS / "stopped_on_processes.py", tmp_path, gpt2_folder, pairs, **zero(stage))
    assert finished.returncode == 0, finished.stderr[-3000:]
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_states_in_zero_are_those_of_one_process_and_a_gradient_that_is_not_finite_is_not_taken(tmp_path, stage):
    shop = Workshop.filled(tmp_path)
    two_steps(shop, "", tmp_path / "alone")
    finished = launch("torchrun", TESTS / "resumed_in_zero.py", tmp_path, stage)
    assert finished.returncode == 0, finished.stderr[-3000:]
    one, two = (states.folder_of(tmp_path / name, 2) for name in ("alone", "of two"))
    norms = [json.loads((folder / states.PROGRESS).read_text())["history"][0]["norm"] for folder in (two, one)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for file in (states.WEIGHTS, states.OPTIMIZER):
        expected, found = load_file(one / file), load_file(two / file)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name], tensor, rtol=1e-5, atol=1e-6), f"{file}: {name}"


@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_in_zero_take_the_steps_of_one_with_every_objective(tmp_path, stage):
    Workshop.filled(tmp_path)
    expected = every_objective(tmp_path)
    output = tmp_path / "of two.safetensors"
    finished = launch("torchrun", TESTS / "steps_on_processes.py", tmp_path, output, f"zero-{stage}")
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = load_file(output)
    assert found.pop("processes") == 2
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-6, atol=1e-6), name
