"""adapter_config.json: what PEFT is asked to do, from here or from elsewhere, checked before PEFT sees it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lorakit.checkpoints.inspection import read_json
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG = "adapter_config.json"

_HARMLESS = frozenset(
    {
        "peft_version",
        "inference_mode",
        "megatron_core",
        "qalora_group_size",
        "loftq_config",
        "runtime_config",
        "revision",
    }
)
"""Keys that say nothing about an adapter's output as long as the features they belong to are off."""


def _plain_pattern(pattern: str) -> str:
    # A repeated group can take exponential time; a name of a module needs none.
    if len(pattern) > 300 or re.search(r"\)[*+{?]", pattern):
        raise ValueError("is no plain name or pattern of modules")
    try:
        re.compile(pattern)
    except re.error as problem:
        raise ValueError(f"is no pattern: {problem}") from problem
    return pattern


def _distinct(rows: list[int]) -> list[int]:
    if len(set(rows)) < len(rows):
        raise ValueError("names a row twice")
    return rows


Pattern = Annotated[str, AfterValidator(_plain_pattern)]
Rank = Annotated[int, Field(ge=1, le=1 << 16)]
Alpha = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rows = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 24)]], Field(min_length=1), AfterValidator(_distinct)]


class LoraFile(BaseModel):
    """adapter_config.json, as far as lorakit computes it (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, use_attribute_docstrings=True)

    peft_type: Literal["LORA"]
    task_type: (
        Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"] | None
    ) = None
    base_model_name_or_path: str | None = None
    """What the author called the base: a hint, followed only as a Hub id or built-in."""
    auto_mapping: dict[str, str | None] | None = None
    r: Rank
    lora_alpha: Alpha
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Pattern | list[Pattern]
    modules_to_save: list[Pattern] | None = None
    """Ends of the names of modules that are stored whole: the head of a classifier."""
    exclude_modules: Pattern | list[Pattern] | None = None
    trainable_token_indices: Rows | dict[Pattern, Rows] | None = None
    """Rows of single tokens that are stored: of the embeddings, or by the end of a layer's name."""
    layers_to_transform: int | list[int] | None = None
    layers_pattern: Pattern | list[Pattern] | None = None
    rank_pattern: dict[Pattern, Rank] = Field(default_factory=dict)
    alpha_pattern: dict[Pattern, Alpha] = Field(default_factory=dict)
    fan_in_fan_out: bool = False
    bias: Literal["none"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] = True

    def scale(self, module: str, rank: int) -> float:
        """Return the factor of B A in `module`: alpha / r, or alpha / sqrt(r) for rsLoRA.

        (Kalajdzievski 2023, arXiv:2312.03732, equation 4.)
        """
        return self.alpha(module) / (math.sqrt(rank) if self.use_rslora else rank)

    def alpha(self, module: str) -> float:
        """Return the alpha of `module`; its own is looked up as PEFT does: the first pattern that ends its name."""
        return next((alpha for key, alpha in self.alpha_pattern.items() if _names(key, module)), self.lora_alpha)

    def rank(self, module: str) -> int:
        """Return the rank of `module`, looked up like its alpha."""
        return next((rank for key, rank in self.rank_pattern.items() if _names(key, module)), self.r)

    def rows(self, module: str) -> list[int]:
        """Return the rows of an embedding or output layer that are stored, in their order in the file."""
        if not isinstance(self.trainable_token_indices, dict):
            return self.trainable_token_indices or []
        return next((rows for key, rows in self.trainable_token_indices.items() if module.endswith(key)), [])

    def to_peft(self) -> LoraConfig:
        """Return PEFT's config, made of checked values alone."""
        from peft import LoraConfig

        unused = {"base_model_name_or_path", "auto_mapping", "peft_type", "init_lora_weights"}
        known = {name: getattr(self, name) for name in type(self).model_fields if name not in unused}
        return LoraConfig(**known)


def read_lora_file(folder: Path) -> LoraFile:
    """Read and check adapter_config.json.

    Raises:
        CheckpointError: It is damaged, out of range, or asks for something that lorakit does not compute.
    """
    file = folder / CONFIG
    raw = read_json(file)
    try:
        # Strict as JSON is: lists stay lists, 1 is no boolean, "8" no number.
        checked = LoraFile.model_validate_json(json.dumps(raw))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{file}: {where} is {_short(first['input'])}: {first['msg']}.") from problem
    odd = {key: value for key, value in (checked.model_extra or {}).items() if value and key not in _HARMLESS}
    if odd:
        key, value = next(iter(odd.items()))
        raise CheckpointError(
            f"{file} asks for {key}: {_short(value)}, which lorakit does not compute; nothing is left out."
        )
    if raw.get("megatron_core") not in (None, "megatron.core"):
        raise CheckpointError(f"{file}: megatron_core names code to import: {_short(raw['megatron_core'])}. Refused.")
    library = (checked.auto_mapping or {}).get("parent_library")
    if library is not None and not library.startswith("transformers."):
        raise CheckpointError(f"{file}: auto_mapping names code to import: {_short(library)}. Refused.")
    return checked


def method_faults(adapter: LoraFile, method: Mapping[str, object]) -> Iterator[str]:
    """Hold adapter_config.json against the settings of the training: an edited scale would fit every shape.

    Args:
        adapter: What the file says.
        method: What manifest.json says: rank, alpha, rslora, dora, a list of targets; a missing key is not compared.
            Ranks and alphas of single layers are what it says, or none.

    Yields:
        One line, where they disagree; nothing tells which of them is right.
    """
    found = {
        "rank": (adapter.r, "r"),
        "alpha": (adapter.lora_alpha, "lora_alpha"),
        "rslora": (adapter.use_rslora, "use_rslora"),
        "dora": (adapter.use_dora, "use_dora"),
    }
    faults = [
        f"{key} is {_short(value)} and {method[name]!r}"
        for name, (value, key) in found.items()
        if name in method and method[name] != value
    ]
    asked, targets = method.get("targets"), adapter.target_modules
    if isinstance(asked, list) and not (isinstance(targets, list) and _same_layers(asked, targets)):
        faults.append(f"target_modules is {_short(targets)} and {_short(asked)}")
    for name, pattern in (("rank_pattern", adapter.rank_pattern), ("alpha_pattern", adapter.alpha_pattern)):
        if method and pattern != (method.get(name) or {}):
            faults.append(f"{name} is {_short(pattern)} and {_short(method.get(name) or {})}")
    if faults:
        yield _disagree(faults)


def check_new_rows(adapter: LoraFile, folder: Path, new_rows: Sequence[int] = ()) -> None:
    """Raise CheckpointError where the rows that `folder` stores are not those of the tokens its manifest.json names."""
    rows = adapter.trainable_token_indices
    if any(stored != list(new_rows) for stored in (rows.values() if isinstance(rows, dict) else [rows or []])):
        raise CheckpointError(
            f"{folder}: {_disagree(['trainable_token_indices are not the rows of the added tokens'])}"
        )


def _disagree(faults: Sequence[str]) -> str:
    return (
        f"{CONFIG} and manifest.json disagree ({'; '.join(faults)}): one of them was edited. Use another copy of this "
        f"folder."
    )


def _names(pattern: str, module: str) -> bool:
    """Whether a pattern of PEFT means a module: it matches the end of its name."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _same_layers(asked: Sequence[str], stored: Sequence[str]) -> bool:
    """Whether two lists of ends of names mean the same; PEFT stores the shortest ends that tell layers apart."""
    pairs = [(long, short) for long in asked for short in stored if f".{long}".endswith(f".{short}")]
    return {long for long, _ in pairs} == set(asked) and {short for _, short in pairs} == set(stored)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
