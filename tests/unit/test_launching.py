"""What Accelerate was started with: read by its own loader, refused where lorakit does something else."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from lorakit.errors import LorakitError
from lorakit.workflows import deepspeed_config, launching
from runs import recipe

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "examples" / "accelerate").glob("*.yaml"))


ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}


def in_file(**sections):
    """Variables of a launcher that was given a DeepSpeed config; Accelerate takes its text as well as its name."""
    return {**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": json.dumps(sections)}


@pytest.fixture
def deepspeed(monkeypatch):
    """As if it were installed, which is all that is asked before a model is cut."""
    monkeypatch.setattr(deepspeed_config, "find_spec", lambda _: True)


@pytest.fixture
def given(tmp_path):
    return recipe(tmp_path, "rows.csv").recipe


def launched(words: list[str], monkeypatch):
    """What `accelerate launch` makes of its words, and the environment in which it would start the processes."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args([*words, "-m", "lorakit", "train"]))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ""
        return arguments, prepare_deepspeed_cmd_env(arguments)[1]
    return arguments, prepare_multi_gpu_env(arguments)


def test_there_is_a_config_for_each_way():
    assert [config.stem for config in CONFIGS] == ["ddp", "fsdp2", "zero3"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_config_of_the_examples_is_one_that_accelerate_reads_and_lorakit_takes(config, monkeypatch, deepspeed):
    _, found = launched(["--config_file", str(config)], monkeypatch)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    launching._check_config()
    assert launching.cut_as() == {"ddp": "", "fsdp2": "fsdp2", "zero3": "zero-3"}[config.stem]
    assert launching._reshards()
    assert found["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (ZERO, r"zero-2, and one process was started"),
        ({**ZERO, "ACCELERATE_USE_FSDP": "true"}, "FSDP and DeepSpeed at once"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "ZeRO stage 0; must be 1, 2 or 3"),
        (
            {**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
            "offload_optimizer on cpu.*Set its device to none",
        ),
        (in_file(zero_optimization={"stage": 3, "zero_quantized_weights": True}), "zero_optimization.zero_quantized_w"),
        (in_file(zero_optimization={"stage": 2}, autotuning={"enabled": True}), "sets autotuning, which"),
        (in_file(bf16={"enabled": True}), "cannot read the DeepSpeed config.*ZeRO"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "nowhere.json"}, "cannot read the DeepSpeed config"),
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
def test_what_lorakit_does_not_do_is_refused(given, tmp_path, monkeypatch, deepspeed, variables, said):
    monkeypatch.setattr(os, "environ", {**os.environ, **variables})
    with pytest.raises(LorakitError, match=said):
        launching.accelerator_for(given, tmp_path)


def test_where_deepspeed_is_missing_the_message_says_how_to_install_it(given, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, **ZERO})
    monkeypatch.setattr(deepspeed_config, "find_spec", lambda _: None)
    with pytest.raises(LorakitError, match=r"pip install 'lorakit\[deepspeed\]'"):
        launching.accelerator_for(given, tmp_path)


def test_of_a_deepspeed_config_how_zero_cuts_is_taken_and_the_recipe_stands_for_the_rest(monkeypatch, deepspeed):
    asked = {"stage": 3, "overlap_comm": "auto", "reduce_bucket_size": 1000, "offload_param": {"device": "none"}}
    sections = {"train_batch_size": "auto", "gradient_clipping": 3.0, "optimizer": {"type": "Lamb"}}
    monkeypatch.setattr(os, "environ", {**os.environ, **in_file(zero_optimization=asked, **sections)})
    assert deepspeed_config.zero_settings() == {"stage": 3, "reduce_bucket_size": 1000}


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
