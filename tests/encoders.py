"""Random encoders with a head, their tokenizer, and rows in a file."""

from __future__ import annotations

import json
from pathlib import Path

import transformers
from safetensors.torch import load_file, save_file
from tokenizers import processors

from conftest import save_checkpoint
from model_types import tiny_model
from writers import bart_tokenizer


def written(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def framing():
    """A byte-level tokenizer that frames one text or two."""
    tokenizer = bart_tokenizer()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
    )
    return tokenizer


def encoder_folder(folder: Path, auto: str, labels=(), **changes) -> Path:
    """A random BERT with a head."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    changes = {"vocab_size": 350, "pad_token_id": 1, **(names if labels else {}), **changes}
    return save_checkpoint(folder, tiny_model("bert", getattr(transformers, auto), "sdpa", **changes), framing())


def with_old_names(folder: Path) -> Path:
    """Call the weights of norms gamma and beta, as files of the first BERTs do."""
    file = folder / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in load_file(file).items():
        ending = next((ending for ending in old if name.endswith(ending)), "")
        tensors[name.removesuffix(ending) + old.get(ending, "")] = tensor
    save_file(tensors, file, {"format": "pt"})
    return folder
