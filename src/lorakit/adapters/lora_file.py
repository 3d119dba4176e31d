"""A LoRA adapter as PEFT stores it, from here or from elsewhere: checked before PEFT sees it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lorakit.adapters.changed import check_new
from lorakit.checkpoints import streams, ties, weights
from lorakit.checkpoints.finding import quiet
from lorakit.checkpoints.inspection import read_json
from lorakit.errors import CheckpointError
from lorakit.types import Head, HeadTask

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the base's own name of a module."""

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


Pattern = Annotated[str, AfterValidator(_plain_pattern)]
Rank = Annotated[int, Field(ge=1, le=1 << 16)]
Alpha = Annotated[float, Field(gt=0, allow_inf_nan=False)]


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

        (Kalajdzievski 2023, arXiv:2312.03732, equation 4.) An alpha of its own is looked up as PEFT does: the first
        pattern that matches the end of the module's name.
        """
        own = (alpha for key, alpha in self.alpha_pattern.items() if re.match(rf"(.*\.)?({key})$", module))
        alpha = next(own, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

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


def check_method(adapter: LoraFile, method: Mapping[str, object], folder: Path) -> None:
    """Hold adapter_config.json against the settings of the training: an edited scale would fit every shape.

    Args:
        adapter: What the file says.
        method: What manifest.json says: rank, alpha, rslora, dora, a list of targets; a missing key is not compared.
        folder: Of the adapter, for messages.

    Raises:
        CheckpointError: They disagree, and nothing tells which of them is right.
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
    if method and (adapter.rank_pattern or adapter.alpha_pattern):
        faults.append("rank_pattern or alpha_pattern is set and was not")
    if faults:
        raise CheckpointError(
            f"{folder}: {CONFIG} and manifest.json disagree ({'; '.join(faults)}): one of them was edited. Use another "
            f"copy of this folder."
        )


def _same_layers(asked: Sequence[str], stored: Sequence[str]) -> bool:
    """Whether two lists of ends of names mean the same; PEFT stores the shortest ends that tell layers apart."""
    pairs = [(long, short) for long in asked for short in stored if f".{long}".endswith(f".{short}")]
    return {long for long, _ in pairs} == set(asked) and {short for _, short in pairs} == set(stored)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def read_lora_weights(folder: Path) -> dict[str, Tensor]:
    """Read the pairs of an adapter, in the dtype they are stored in.

    Raises:
        CheckpointError: The file is missing or damaged, or a number in it is not finite.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        other = " adapter_model.bin is a pickle and is not read." if (folder / "adapter_model.bin").exists() else ""
        raise CheckpointError(f"{folder} holds no {WEIGHTS}.{other}")
    found = dict(weights.tensors(file))
    for name, tensor in found.items():
        if not (tensor.is_floating_point() and weights.is_finite(tensor)):
            raise CheckpointError(f"{file} is damaged: {name!r} holds something other than finite numbers.")
        if "lora_embedding_" in name:
            raise CheckpointError(f"{file} adapts embeddings ({name!r}), which lorakit does not compute.")
    return found


def is_pair(name: str) -> bool:
    """Whether a tensor of the file is part of a low-rank pair; else it is a weight that is stored whole."""
    return ".lora_" in name


def adapted_weight(name: str) -> str:
    """Return the base's own name of the weight that a tensor of the file changes or replaces."""
    inner = name.removeprefix(PREFIX)
    return inner.rpartition(".lora_")[0] + ".weight" if is_pair(name) else inner


def wrap(model: PreTrainedModel, adapter: LoraFile, folder: Path, fresh: Collection[str] = ()) -> PeftModel:
    """Put the adapter in `folder` on `model` through PEFT, every tensor accounted for.

    Args:
        model: The base with the adapter's head.
        adapter: The checked adapter_config.json.
        folder: Of the adapter.
        fresh: Names of weights that the base lacks; the adapter must bring them.

    Raises:
        CheckpointError: The file lacks a tensor, holds one too many, or one of another shape.
    """
    import torch
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    found = read_lora_weights(folder)
    adapted = {adapted_weight(name) for name in found}
    check_new(folder / WEIGHTS, model, fresh, adapted)
    if ties.must_untie(model, adapted):
        # Else a merge in memory would change the embeddings together with the output layer.
        ties.untie(model)
    # PEFT draws pairs at random before they are overwritten; the caller's random numbers must not move.
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            wrapped = get_peft_model(model, adapter.to_peft(), autocast_adapter_dtype=True)
        except ValueError as problem:
            raise CheckpointError(f"the adapter in {folder} does not fit its base: {problem}") from problem
        expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        faults = [
            *(f"  missing     {name}" for name in sorted(expected.keys() - found.keys())),
            *(f"  unexpected  {name}" for name in sorted(found.keys() - expected.keys())),
            *(
                f"  misshapen   {name}: {tuple(found[name].shape)}, the base needs {tuple(expected[name].shape)}"
                for name in sorted(expected.keys() & found.keys())
                if expected[name].shape != found[name].shape
            ),
        ]
        if faults:
            more = [f"  … {len(faults) - 8} more"] if len(faults) > 8 else []
            raise CheckpointError(
                "\n".join([f"the adapter in {folder} does not fit its base or was edited:", *faults[:8], *more])
            )
        set_peft_model_state_dict(wrapped, found)
    return wrapped.eval()


def write(folder: Path, model: PeftModel, base: str, revision: str | None) -> None:
    """Write PEFT's pair of files, in float32; the base is named by its identity, never by a path."""
    from peft import get_peft_model_state_dict

    pairs = get_peft_model_state_dict(model, save_embedding_layers=False)
    infos = {name: streams.TensorInfo("F32", tuple(tensor.shape)) for name, tensor in pairs.items()}
    streams.write_stream(folder / WEIGHTS, infos, lambda name: pairs[name].float())
    config: dict[str, Any] = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True, "auto_mapping": None}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def head_of(adapter: LoraFile, folder: Path, own: Head) -> Head:
    """Return the head of an adapter that has no manifest: as many labels as its stored classifier scores.

    Args:
        adapter: The checked adapter_config.json.
        folder: Of the adapter.
        own: The head of the base.
    """
    tasks: dict[str, HeadTask] = {
        "CAUSAL_LM": "causal_lm",
        "SEQ_2_SEQ_LM": "seq2seq_lm",
        "SEQ_CLS": "sequence_classification",
        "TOKEN_CLS": "token_classification",
        "QUESTION_ANS": "question_answering",
    }
    task = tasks.get(adapter.task_type or "", own.task)
    if task == own.task:
        return own
    if task not in ("sequence_classification", "token_classification"):
        return Head(task)
    whole = [tensor for name, tensor in read_lora_weights(folder).items() if not is_pair(name)]
    scored = whole[-1].shape[0] if whole else 2
    labels = tuple(f"LABEL_{number}" for number in range(scored))
    return Head(task, labels, "single_label_classification" if task == "sequence_classification" else None)
