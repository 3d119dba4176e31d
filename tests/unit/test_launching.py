"""What Accelerate was started with: read by its own loader, refused where lorakit does something else."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from lorakit.errors import LorakitError
from lorakit.workflows import launching
from runs import recipe

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "examples" / "accelerate").glob("*.yaml"))


@pytest.fixture
def given(tmp_path):
    return recipe(tmp_path, "rows.csv").recipe


def launched(words: list[str], monkeypatch):
    """What `accelerate launch` makes of its words, and the environment in which it would start the processes."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args([*words, "-m", "lorakit", "train"]))
    environment = prepare_multi_gpu_env(arguments)
    return arguments, environment


def test_there_is_a_config_for_each_way():
    assert [config.stem for config in CONFIGS] == ["ddp", "fsdp2"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_config_of_the_examples_is_one_that_accelerate_reads_and_lorakit_takes(config, monkeypatch):
    _, found = launched(["--config_file", str(config)], monkeypatch)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    launching._check_config()
    assert launching.shards() == (config.stem == "fsdp2")
    assert launching._reshards()
    assert found["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed, which clips, steps and clears gradients"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "parallelism_config"),
        ({"ACCELERATE_USE_FSDP": "true"}, "fsdp_version: 1; must be 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            "train.gradient_checkpointing=true instead",
        ),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "one process was started"),
    ],
)
def test_what_lorakit_does_not_do_is_refused(given, tmp_path, monkeypatch, variables, said):
    monkeypatch.setattr(os, "environ", {**os.environ, **variables})
    with pytest.raises(LorakitError, match=said):
        launching.accelerator_for(given, tmp_path)


def test_several_processes_do_not_share_standard_input(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LorakitError, match="standard input cannot be read by several processes"):
        launching.accelerator_for(recipe(tmp_path, "-").recipe, tmp_path)


def test_adafactor_has_no_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"})
    asked = recipe(tmp_path, "rows.csv", method="full", optim={"name": "adafactor", "learning_rate": 1e-3}).recipe
    with pytest.raises(LorakitError, match="adafactor"):
        launching.accelerator_for(asked, tmp_path)


def test_an_accumulation_count_of_the_environment_does_not_divide_the_loss(given, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert launching.accelerator_for(given, tmp_path).gradient_accumulation_steps == 1


def test_a_precision_of_the_config_is_told_to_be_passed_over(given, tmp_path, monkeypatch):
    accelerator = launching.accelerator_for(given, tmp_path)
    assert launching.notes(accelerator) == []
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert launching.notes(accelerator) == [
        "mixed_precision: fp16 of Accelerate's config is passed over; train.dtype decides"
    ]


@pytest.mark.parametrize("begun", [False, True])
def test_the_slurm_script_starts_what_accelerate_and_lorakit_take(tmp_path, monkeypatch, begun):
    """`srun` and `scontrol` stand for a cluster of two machines, on the second of which this runs."""
    commands = {"scontrol": "echo first-host; echo second-host", "srun": 'exec "$@"', "accelerate": 'printf "%q " "$@"'}
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    run = tmp_path / "my run"
    if begun:
        (run / "checkpoints").mkdir(parents=True)
    slurm = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}
    finished = subprocess.run(
        ["bash", "examples/slurm.sh", "recipe.yaml", run],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    words = shlex.split(finished.stdout)
    start = words.index("-m")
    assert words[start + 1 :] == ["lorakit", "train", *(["--resume"] if begun else ["recipe.yaml"]), "-o", str(run)]
    monkeypatch.chdir(ROOT)
    asked, found = launched(words[1:start], monkeypatch)
    assert asked.rdzv_endpoint == "first-host:29500"
    assert (asked.nnodes, asked.nproc_per_node, asked.node_rank) == ("2", "8", 1)
    assert found["FSDP_VERSION"] == "2"
