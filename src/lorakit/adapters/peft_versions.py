"""Which release of PEFT is the oldest that reads an adapter and gives the same scores.

Each line of the table was read in PEFT's own source, release by release, and tried with adapters of GPT-2 and Llama:
the release before it stops, or scores otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import LoraConfig

    from lorakit.adapters.lora_config import LoraFile

OLDEST = "0.10.0"
"""The oldest that reads every key lorakit always writes (``layer_replication`` is the newest of them)."""

KEYS = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layer_replication",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "megatron_config",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_dora",
        "use_rslora",
    }
)
"""What PEFT 0.10 reads of adapter_config.json (fields of its PeftConfig and LoraConfig); any other key stops it."""

_SINCE = {
    "DoRA beside a Conv1D": "0.11.0",  # lora/layer.py, _get_weight_norm: transposed where fan_in_fan_out
    "ranks and alphas by patterns of their own": "0.14.0",  # utils/other.py, get_pattern_key: called for each
    "settings that PEFT 0.10 does not know": "0.14.0",  # config.py, from_peft_type: unknown keys are left out, told
    "modules that are excluded": "0.14.0",  # lora/config.py, exclude_modules
    "ranks or alphas by whole names or choices": "0.15.0",  # utils/other.py, get_pattern_key: (.*\.)?({key})$
    "rows of single tokens": "0.15.0",  # lora/config.py, trainable_token_indices
    "orthogonal start": "0.16.0",  # lora/layer.py, orthogonal_init; earlier ones refuse the name
    # trainable_tokens/layer.py, init_buffer: 0.15 takes a Linear, 0.16 and 0.17 stop at it (embedding_dim).
    "rows of single tokens in two layers": "0.18.0",
}
"""What an adapter may use -> the first release from which on every one reads and computes it."""


@dataclass(frozen=True, slots=True)
class Needed:
    """The oldest release of PEFT that gives the same scores, and why none before it."""

    version: str
    because: tuple[str, ...]
    """What no earlier one reads or computes; empty where no older release was looked at."""

    @property
    def told(self) -> str:
        """In words: ``0.15.0 or later (rows of single tokens)``."""
        return f"{self.version} or later" + (f" ({', '.join(self.because)})" if self.because else "")


def stored_settings(config: LoraConfig) -> dict[str, Any]:
    """Return what adapter_config.json holds: what PEFT 0.10 reads, and of later keys those that say something.

    A later key is left out only where its value is the default of its field; which PEFT wrote it says nothing.
    """
    known = {field.name: field for field in fields(config)}
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    said = {key for key, value in values.items() if key != "peft_version" and value != _default(known[key])}
    return {key: value for key, value in values.items() if key in KEYS or key in said}


def needed(adapter: LoraFile, ranks: Mapping[str, int]) -> Needed:
    """Return the oldest release of PEFT that reads an adapter and gives the same scores.

    Args:
        adapter: Its adapter_config.json.
        ranks: Of each adapted module by the base's name, as they are in its file.
    """
    rows = adapter.trainable_token_indices
    used = {
        "DoRA beside a Conv1D": adapter.use_dora and adapter.fan_in_fan_out,
        "ranks and alphas by patterns of their own": not _alike(adapter, ranks, shared=True),
        "settings that PEFT 0.10 does not know": not {*adapter.model_fields_set, *(adapter.model_extra or {})} <= KEYS,
        "modules that are excluded": bool(adapter.exclude_modules),
        "ranks or alphas by whole names or choices": not _alike(adapter, ranks, shared=False),
        "rows of single tokens": rows is not None,
        "rows of single tokens in two layers": isinstance(rows, dict) and len(rows) > 1,
        "orthogonal start": adapter.init_lora_weights == "orthogonal",
    }
    found = [what for what, there in used.items() if there]
    version = max((_SINCE[what] for what in found), key=_number, default=OLDEST)
    return Needed(version, tuple(what for what in found if _SINCE[what] == version))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _alike(adapter: LoraFile, ranks: Mapping[str, int], shared: bool) -> bool:
    """Whether an older look-up of patterns finds every rank and alpha; keys are held to what follows a dot there.

    Args:
        adapter: With the patterns.
        ranks: By module.
        shared: As until 0.13: the first key that matches, of ranks or of alphas, is looked up in both. Else as in 0.14.
    """
    by_rank, by_alpha = adapter.rank_pattern, adapter.alpha_pattern

    def own(module: str, *patterns: Mapping[str, object]) -> str:
        keys = (key for pattern in patterns for key in pattern)
        return next((key for key in keys if re.match(rf".*\.{key}$", module)), module)

    for module, rank in ranks.items():
        keys = (own(module, by_rank, by_alpha),) * 2 if shared else (own(module, by_rank), own(module, by_alpha))
        found = by_rank.get(keys[0], adapter.r), by_alpha.get(keys[1], adapter.lora_alpha)
        if found != (rank, adapter.alpha(module)):
            return False
    return True
