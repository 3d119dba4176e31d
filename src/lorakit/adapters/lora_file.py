"""A LoRA adapter as PEFT stores it: its weights read, put on a base with every tensor accounted for, and written."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorakit.adapters import peft_versions, rounded_file
from lorakit.adapters.changed import check_new
from lorakit.adapters.lora_config import CONFIG, LoraFile
from lorakit.checkpoints import shards, streams, ties, token_rows, weights
from lorakit.checkpoints.finding import quiet
from lorakit.errors import CheckpointError
from lorakit.types import Head, HeadTask

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the base's own name of a module."""
_ROWS = ".token_adapter.trainable_tokens_delta"
"""What PEFT puts behind the name of a layer of which single rows are stored."""


Width = Literal["float32", "bf16", rounded_file.Width]
"""How the numbers of an adapter are stored. Plain PEFT reads the first two."""


def weight_file(folder: Path) -> Path:
    """Return the file of the pairs; raises CheckpointError where it is missing or there are two."""
    file, rounded = folder / WEIGHTS, folder / rounded_file.WEIGHTS
    if file.is_file() and rounded.is_file():
        raise CheckpointError(f"{folder} holds {WEIGHTS} and {rounded.name}: move one of them elsewhere.")
    if rounded.is_file():
        return rounded
    if not file.is_file():
        other = " adapter_model.bin is a pickle and is not read." if (folder / "adapter_model.bin").exists() else ""
        raise CheckpointError(f"{folder} holds no {WEIGHTS}.{other}")
    return file


def is_rounded(folder: Path) -> bool:
    """Whether the pairs of an adapter are stored in 8 or 4 bits, which PEFT alone cannot read."""
    return (folder / rounded_file.WEIGHTS).is_file()


def infos(file: Path) -> dict[str, streams.TensorInfo]:
    """Return what a file of weights holds by its header alone; of rounded ones what they are once restored."""
    return rounded_file.infos(file) if file.name == rounded_file.WEIGHTS else streams.read_header(file)


def tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of a file of weights, one at a time; rounded ones restored to float32."""
    return rounded_file.tensors(file) if file.name == rounded_file.WEIGHTS else weights.tensors(file)


def read_lora_weights(folder: Path) -> dict[str, Tensor]:
    """Read the pairs of an adapter, in the dtype they are stored in, or restored to float32.

    Raises:
        CheckpointError: The file is missing or damaged, or a number in it is not finite.
    """
    return dict(checked(weight_file(folder)))


def checked(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield what `tensors` does; raises like `read_lora_weights`."""
    for name, tensor in tensors(file):
        if not (tensor.is_floating_point() and weights.is_finite(tensor)):
            raise CheckpointError(f"{file} is damaged: {name!r} holds something other than finite numbers.")
        if "lora_embedding_" in name:
            raise CheckpointError(f"{file} adapts embeddings ({name!r}), which lorakit does not compute.")
        yield name, tensor


def is_pair(name: str) -> bool:
    """Whether a tensor of the file is part of a low-rank pair; else it is a weight that is stored whole."""
    return ".lora_" in name


def is_rows(name: str) -> bool:
    """Whether a tensor of the file holds single rows of a layer: embeddings of new tokens."""
    return name.endswith(_ROWS)


def adapted_weight(name: str) -> str:
    """Return the base's own name of the weight that a tensor of the file changes or replaces."""
    inner = name.removeprefix(PREFIX)
    if is_rows(inner):
        return inner.removesuffix(_ROWS) + ".weight"
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
    check_new(weight_file(folder), model, fresh, adapted)
    _check_rows(adapter, model, folder)
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
        faults = [f"  {fault}" for fault in misfits(expected, found)]
        if faults:
            more = [f"  … {len(faults) - 8} more"] if len(faults) > 8 else []
            raise CheckpointError(
                "\n".join([f"the adapter in {folder} does not fit its base or was edited:", *faults[:8], *more])
            )
        set_peft_model_state_dict(wrapped, found)
    token_rows.complete(wrapped)
    return wrapped.eval()


def misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor | streams.TensorInfo]) -> list[str]:
    """Return a line for each tensor that is missing, one too many, or of another shape than expected."""
    return [
        *(f"missing     {name}" for name in sorted(expected.keys() - found.keys())),
        *(f"unexpected  {name}" for name in sorted(found.keys() - expected.keys())),
        *(
            f"misshapen   {name}: {tuple(found[name].shape)}, the base needs {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & found.keys())
            if tuple(expected[name].shape) != tuple(found[name].shape)
        ),
    ]


def _check_rows(adapter: LoraFile, model: PreTrainedModel, folder: Path) -> None:
    rows = adapter.trainable_token_indices or []
    largest = max((row for part in (rows.values() if isinstance(rows, dict) else [rows]) for row in part), default=0)
    there = model.get_input_embeddings().num_embeddings
    if largest >= there:
        raise CheckpointError(
            f"{folder} holds row {largest} of the embeddings, and the base has {there}: it was trained with tokens "
            f"that the base lacks, and no manifest.json says which. Merge it where it was made."
        )


def weights_of(model: PeftModel) -> dict[str, Tensor]:
    """Return what the file of an adapter holds, by the names that it has there; the model's own memory."""
    from peft import get_peft_model_state_dict

    # The parameters themselves: a part of one knows where the others are, and forgets it when it is detached.
    parameters = model.state_dict(keep_vars=True)
    found: dict[str, Tensor] = get_peft_model_state_dict(model, parameters, save_embedding_layers=False)
    return found


def write(folder: Path, model: PeftModel, base: str, revision: str | None) -> None:
    """Write PEFT's pair of files, in float32; the base is named by its identity, never by a path."""
    write_files(folder, weights_of(model), model.peft_config["default"], base, revision)


def write_files(
    folder: Path,
    found: Mapping[str, Tensor],
    config: LoraConfig,
    base: str,
    revision: str | None,
    width: Width = "float32",
) -> None:
    """Write PEFT's pair of files for tensors that have its names, in a width of numbers; otherwise like `write`.

    The settings are written as PEFT's old releases read them. Vectors are stored in float32 in every width: a length of
    DoRA scales a whole row of the base.
    """
    if width == "float32":
        shards.write(folder / WEIGHTS, found, widened=True)
    elif width == "bf16":
        narrow = {name: tensor.bfloat16() if tensor.dim() == 2 else tensor.float() for name, tensor in found.items()}
        shards.write(folder / WEIGHTS, narrow)
    else:
        rounded_file.write(folder / rounded_file.WEIGHTS, found, width)
    values = peft_versions.stored_settings(config)
    values |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True, "auto_mapping": None}
    (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
    whole = [tensor for name, tensor in read_lora_weights(folder).items() if not (is_pair(name) or is_rows(name))]
    scored = whole[-1].shape[0] if whole else 2
    labels = tuple(f"LABEL_{number}" for number in range(scored))
    return Head(task, labels, "single_label_classification" if task == "sequence_classification" else None)
