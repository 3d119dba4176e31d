"""What a model folder from elsewhere may say, checked before any library acts on it: no code, no absurd sizes."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lorakit.checkpoints import weights
from lorakit.errors import CheckpointError

_PLAIN_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("tokenizer.model",),
    ("spiece.model",),
    ("vocab.txt",),
)

_SIZES = {
    "vocab_size": (("vocab_size",), 1 << 24),
    "width": (("hidden_size", "n_embd", "n_embed", "d_model"), 1 << 17),
    "blocks": (("num_hidden_layers", "n_layer", "num_layers"), 1 << 12),
    "heads": (("num_attention_heads", "n_head", "num_heads"), 1 << 12),
}
"""Size -> its keys in the config.json of different types, and the largest value believed."""

_BUFFERS = (
    "attn.bias",
    "attn.masked_bias",
    "attention.bias",
    "attention.masked_bias",
    "rotary_emb.inv_freq",
    "position_ids",
)
"""Ends of the names of constants that old files hold beside the weights."""


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json, refusing what would run code or cannot be computed with.

    Raises:
        CheckpointError: The file is missing or damaged, asks for code or a quantised format, or its sizes are absurd.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(_no_config(folder))
    config = read_json(file)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{file} names no model_type, so that nobody knows what the weights are.")
    names = config.get("architectures") or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise CheckpointError(f"{file}: architectures is {names!r}; it should be a list of class names.")
    for part in _parts(config):
        _refuse_code(file, part)
    _check_sizes(file, config)
    return config


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        CheckpointError: It does not.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise CheckpointError(f"{file} cannot be read ({problem.strerror}).") from problem
    except (ValueError, RecursionError) as problem:
        raise CheckpointError(f"{file} is damaged: it is no JSON ({problem}). Download or copy it again.") from problem
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is damaged: it should hold one JSON object, not a {type(found).__name__}.")
    return found


def _no_config(folder: Path) -> str:
    if (folder / "adapter_config.json").exists() or (folder / "manifest.json").exists():
        command = f"lorakit merge {shlex.quote(str(folder))} -o NEW_FOLDER"
        return f"{folder} holds an adapter, not a whole model. Merge it first: {command}"
    return f"{folder} is no model folder: it holds no config.json."


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _refuse_code(file: Path, part: Mapping[str, Any]) -> None:
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        if part.get(key) is not None and part[key] not in _PLAIN_ATTENTION:
            raise CheckpointError(f"{file} asks for code from elsewhere: {key} is {part[key]!r}. It is not loaded.")
    for key in ("_attn_implementation_internal", "_experts_implementation_internal", "transformers_weights"):
        if part.get(key) is not None:
            raise CheckpointError(f"{file} sets {key}, which no honest checkpoint needs. It is not loaded.")
    if part.get("trust_remote_code"):
        raise CheckpointError(f"{file} asks to trust its own code. lorakit never runs code of a checkpoint.")
    if part.get("quantization_config") is not None:
        raise CheckpointError(
            f"{file}: the weights are quantised, which cannot be trained here. Use the original model."
        )
    if part.get("auto_map") is not None and not known_to_transformers(part.get("model_type")):
        raise CheckpointError(
            f"{file}: model type {part.get('model_type')!r} needs code from the checkpoint (auto_map). "
            f"lorakit never runs code of a checkpoint; use a model that transformers itself knows."
        )


def known_to_transformers(model_type: object) -> bool:
    """Whether transformers itself, without code of the checkpoint, has this type of model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def _check_sizes(file: Path, config: Mapping[str, Any]) -> None:
    for keys, largest in _SIZES.values():
        for key in keys:
            value = config.get(key, 1)
            if type(value) is not int or not 1 <= value <= largest:
                raise CheckpointError(f"{file}: {key} is {value!r}; it should be a whole number from 1 to {largest}.")
    width, heads = size(config, "width"), size(config, "heads")
    if width and heads and width % heads and "head_dim" not in config:
        raise CheckpointError(f"{file}: a width of {width} cannot be shared by {heads} heads.")


def size(config: Mapping[str, Any], name: str) -> int | None:
    """Return a size of the model by its plain name (``width``, ``vocab_size``); None where the type has no such key."""
    return next((config[key] for key in _SIZES[name][0] if key in config), None)


def check_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Check the weight files against each other and against the sizes in `config`; of safetensors, headers alone.

    Raises:
        CheckpointError: A file is missing or damaged, weights are stored as whole numbers, or the config describes
            a model that these files cannot hold.
    """
    infos = {name: place.info for name, place in weights.layout(folder).items()}
    for name, info in infos.items():
        if not info.floating and not is_buffer(name):
            raise CheckpointError(
                f"{folder}: tensor {name!r} is stored as {info.dtype}; weights are floating-point numbers."
            )
    elements = sum(math.prod(info.shape) for info in infos.values())
    vocabulary, width, blocks = (size(config, name) or 0 for name in ("vocab_size", "width", "blocks"))
    # Neither the embedding nor a tensor for each block would fit: do not let a library try to build it.
    if blocks > len(infos) or (vocabulary * width > elements and "word_embed_proj_dim" not in config):
        raise CheckpointError(
            f"{folder / 'config.json'} describes another model than the weights beside it: {blocks} blocks and "
            f"{vocabulary} x {width} embeddings, against {len(infos)} tensors with {elements} numbers in all."
        )


def is_buffer(name: str) -> bool:
    """Return whether `name` is a constant that old files hold beside the weights: a causal mask, rotary frequencies."""
    return name.endswith(_BUFFERS)


def check_tokenizer_files(folder: Path) -> None:
    """Raise CheckpointError where the folder holds no tokenizer: transformers would make up an empty one."""
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES):
        accepted = ", ".join(" + ".join(names) for names in _TOKENIZER_FILES)
        raise CheckpointError(f"{folder} holds no tokenizer. Copy it there from the original model: one of {accepted}.")
