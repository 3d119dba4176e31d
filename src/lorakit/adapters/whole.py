"""A whole model folder that plain transformers loads: weights, config.json, tokenizer and generation files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lorakit.checkpoints import shards, ties, weights
from lorakit.checkpoints.heads import config_keys
from lorakit.types import Head

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from lorakit.checkpoints.finding import Checkpoint

COMPANIONS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
)
"""Files of a tokenizer and of text generation."""


def write(folder: Path, model: nn.Module, base: Checkpoint, head: Head) -> None:
    """Write `model`, in float32, as a transformers folder; a tied output layer is stored once."""
    shards.write(folder / weights.SINGLE, weights_of(model), widened=True)
    write_companions(folder, base, "float32", cast("PreTrainedModel", model), head)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return what the file of a whole model holds, by name; the model's own memory."""
    parameters = dict(model.named_parameters())
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - parameters.keys()
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in tied}


def write_companions(
    folder: Path, base: Checkpoint, dtype: str, model: PreTrainedModel, head: Head, tied: bool | None = None
) -> None:
    """Write config.json for weights of `dtype`, and copy the tokenizer and generation files byte for byte.

    With new tokens the tokenizer's files are written anew.

    Args:
        folder: Exists.
        base: Whose files are copied.
        dtype: Of the stored weights.
        model: Of the class that is to be loaded; its weights may be on the meta device.
        head: Its output.
        tied: Whether output layer and embeddings are stored as one; None: as they are in `model`.
    """
    kept = {key: value for key, value in base.config.items() if key not in ("torch_dtype", "_name_or_path", "auto_map")}
    config = {**kept, "dtype": dtype, "architectures": [type(model).__name__], **config_keys(head)}
    if head.task == "sequence_classification":
        config["pad_token_id"] = model.config.pad_token_id
    tied = ties.is_tied(model) if tied is None else tied
    # In a T5 this key says whether scores are scaled; whether layers are tied is told by what is stored.
    if model.get_output_embeddings() is not None and "scale_decoder_outputs" not in model.config.to_dict():
        config["tie_word_embeddings"] = tied
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name in COMPANIONS:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)
    if base.new_tokens is not None:
        base.tokenizer.save_pretrained(folder)
