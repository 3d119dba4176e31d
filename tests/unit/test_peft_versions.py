"""What old releases of PEFT read: the keys that are stored, and the oldest release that gives the same scores.

The expected releases were found by loading such adapters in PEFT 0.9 to 0.21 and comparing logits.
"""

from __future__ import annotations

import json

import pytest
from peft import LoraConfig

from bundles import trained_run
from lorakit.adapters.lora_config import LoraFile
from lorakit.adapters.peft_versions import KEYS, needed, stored_settings
from lorakit.checkpoints.finding import find
from lorakit.methods.settings import LoraSettings
from lorakit.workflows.describing import info

MODULES = {"transformer.h.0.attn.c_attn": 4, "transformer.h.1.attn.c_attn": 4}
FIRST = "transformer.h.0.attn.c_attn"


def test_a_trained_adapter_holds_the_keys_of_peft_0_10_and_no_other(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(rslora=True, dora=True), "lora")
    assert set(json.loads((tmp_path / "run" / "adapter_config.json").read_text())) == KEYS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainable_token_indices", {"wte": [3]}),
        ("exclude_modules", ["pooler"]),
        ("lora_bias", True),
        ("qalora_group_size", 32),
        ("target_parameters", ["experts"]),
    ],
)
def test_a_later_key_stays_where_it_says_something(key, value):
    stored = stored_settings(LoraConfig(target_modules=["c_attn"], **{key: value}))
    assert set(stored) == {*KEYS, key}
    assert stored[key] == value


def test_what_is_left_out_is_what_peft_assumes():
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["c_attn"], rank_pattern={"c_attn": 2}, use_rslora=True)
    assert LoraConfig(**stored_settings(config)).to_dict() == config.to_dict()


def adapter(**settings) -> LoraFile:
    values = {"peft_type": "LORA", "r": 4, "lora_alpha": 8.0, "target_modules": ["c_attn"], **settings}
    return LoraFile.model_validate_json(json.dumps(values))


@pytest.mark.parametrize(
    ("settings", "ranks", "expected"),
    [
        ({}, MODULES, "0.10.0"),
        ({"use_rslora": True}, MODULES, "0.10.0"),
        ({"use_dora": True}, MODULES, "0.10.0"),
        ({"use_dora": True, "fan_in_fan_out": True}, MODULES, "0.11.0"),
        ({"rank_pattern": {FIRST: 2}, "alpha_pattern": {FIRST: 2.0}}, {**MODULES, FIRST: 2}, "0.10.0"),
        ({"rank_pattern": {"c_attn": 2}, "alpha_pattern": {"c_attn": 5.0}}, dict.fromkeys(MODULES, 2), "0.10.0"),
        ({"rank_pattern": {"c_attn": 2}, "alpha_pattern": {FIRST: 5.0}}, dict.fromkeys(MODULES, 2), "0.14.0"),
        ({"rank_pattern": {FIRST: 2}, "alpha_pattern": {"c_attn": 5.0}}, {**MODULES, FIRST: 2}, "0.14.0"),
        ({"rank_pattern": {"c_fc|c_attn": 2}}, dict.fromkeys(MODULES, 2), "0.15.0"),
        ({"alpha_pattern": {f"^{FIRST}": 3.0}}, MODULES, "0.15.0"),
        ({"exclude_modules": ["pooler"]}, MODULES, "0.14.0"),
        ({"corda_config": None}, MODULES, "0.14.0"),
        ({"init_lora_weights": "orthogonal"}, MODULES, "0.16.0"),
        ({"trainable_token_indices": {"wte": [3]}}, MODULES, "0.15.0"),
        ({"trainable_token_indices": {"wte": [3], "lm_head": [3]}}, MODULES, "0.18.0"),
        ({"trainable_token_indices": {"wte": [3]}, "rank_pattern": {"c_attn": 2}}, dict.fromkeys(MODULES, 2), "0.15.0"),
    ],
)
def test_the_oldest_peft_is_that_of_the_newest_thing_an_adapter_uses(settings, ranks, expected):
    assert needed(adapter(**settings), ranks).version == expected


def test_info_names_the_oldest_peft_and_what_asks_for_it(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(dora=True), "lora")
    assert info(str(tmp_path / "run")).peft.told == "0.11.0 or later (DoRA beside a Conv1D)"
