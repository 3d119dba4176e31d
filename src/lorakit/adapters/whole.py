"""A whole model folder that plain transformers loads: weights, config.json, tokenizer and generation files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.checkpoints import streams, weights

if TYPE_CHECKING:
    from torch import nn

    from lorakit.checkpoints.finding import Checkpoint

_COMPANIONS = (
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


def write(folder: Path, model: nn.Module, base: Checkpoint) -> None:
    """Write `model`, in float32, as a transformers folder; a tied output layer is stored once."""
    parameters = dict(model.named_parameters())
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - parameters.keys()
    stored = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    infos = {
        name: streams.TensorInfo(
            "F32" if tensor.is_floating_point() else streams.dtype_name(tensor), tuple(tensor.shape)
        )
        for name, tensor in stored.items()
    }
    streams.write_stream(
        folder / weights.SINGLE,
        infos,
        lambda name: stored[name].float() if stored[name].is_floating_point() else stored[name],
    )
    write_companions(folder, base, dtype="float32", tied=bool(tied))


def write_companions(folder: Path, base: Checkpoint, dtype: str, tied: bool) -> None:
    """Write config.json for weights of `dtype`, and copy the tokenizer and generation files byte for byte."""
    kept = {key: value for key, value in base.config.items() if key not in ("torch_dtype", "_name_or_path", "auto_map")}
    config = {**kept, "dtype": dtype, "tie_word_embeddings": tied}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name in _COMPANIONS:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)
