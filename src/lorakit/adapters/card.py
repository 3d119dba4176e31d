"""README.md of a run or a merged model: what it is, what it was made from, how to use it. A model card on the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lorakit.adapters.facts import CARD, facts
from lorakit.adapters.manifest import Manifest
from lorakit.adapters.peft_versions import Needed
from lorakit.checkpoints.heads import AUTO, writes
from lorakit.errors import CheckpointError
from lorakit.types import HeadTask

_WHAT = {
    "lora": "A LoRA adapter",
    "changed": "The trained weights",
    "full": "A fine-tuned model",
    "merged": "A model with its adapter merged in",
}


USE = "## Use"
"""Heading of the part that says how to load it."""
PLACE = "THIS_FOLDER"
"""What stands for its name or place in commands."""
_HUB = "hf://"
_GROWN = (
    "if len(tokenizer) > base.config.vocab_size:",
    "    base.resize_token_embeddings(len(tokenizer))  # what the new rows hold does not matter",
)
_BIASED = (
    "Where the output layer has a bias (BERT and its kin filling in words, Phi), PEFT 0.21 leaves it out: "
    "merge there first, `lorakit merge THIS_FOLDER -o NEW_FOLDER`."
)


@dataclass(frozen=True, slots=True)
class _Purpose:
    tag: str
    """Name of the task on the Hub."""
    arguments: str
    """Of `lorakit`, after them what is asked."""
    limits: str


_PURPOSES: dict[HeadTask, _Purpose] = {
    "causal_lm": _Purpose("text-generation", 'generate THIS_FOLDER "..."', "It writes text"),
    "seq2seq_lm": _Purpose("text2text-generation", 'generate THIS_FOLDER "..."', "It writes text"),
    "masked_lm": _Purpose("fill-mask", 'predict THIS_FOLDER "... [MASK] ..."', "It fills in hidden words"),
    "masked_lm_nsp": _Purpose("fill-mask", 'predict THIS_FOLDER "... [MASK] ..."', "It fills in hidden words"),
    "sequence_classification": _Purpose("text-classification", 'predict THIS_FOLDER "..."', "It labels texts"),
    "token_classification": _Purpose("token-classification", 'predict THIS_FOLDER "..."', "It finds names in texts"),
    "question_answering": _Purpose(
        "question-answering", 'predict THIS_FOLDER "TEXT" --question "..."', "It finds answers in texts"
    ),
}


def write(folder: Path, manifest: Manifest) -> None:
    """Write README.md for the weights, settings and recipe that `folder` already holds."""
    found = facts(folder)
    front = {**metadata(manifest), "datasets": _datasets(folder) or None}
    given = {key: value for key, value in front.items() if value is not None}
    (folder / CARD).write_text(joined(given, text(manifest, found.peft)), encoding="utf-8")


def metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the front matter that the Hub reads: it shows a model under its base, which must be one of the Hub's."""
    base = manifest.base.identity
    relation = "adapter" if manifest.form == "lora" else "finetune"
    libraries = {"lora": "peft", "changed": "lorakit"}
    return {
        "library_name": libraries.get(manifest.form, "transformers"),
        **({"base_model": base, "base_model_relation": relation} if ":" not in base else {}),
        "pipeline_tag": _PURPOSES[manifest.head.task].tag,
        "tags": ["lorakit", *(["lora"] if manifest.form == "lora" else [])],
    }


def joined(front: Mapping[str, Any], body: str) -> str:
    """Return a card of front matter and text."""
    written = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, default_flow_style=None)
    return f"---\n{written}---\n\n{body.lstrip()}"


def parted(text: str) -> tuple[dict[str, Any], str]:
    """Return the front matter of a card, empty where it has none, and its text.

    Raises:
        CheckpointError: The front matter is no YAML.
    """
    if not text.startswith("---\n") or "\n---\n" not in text:
        return {}, text
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    try:
        found = yaml.safe_load(front)
    except yaml.YAMLError as problem:
        raise CheckpointError(f"{CARD}: what stands between its first two lines of --- is no YAML: {problem}") from None
    return (found if isinstance(found, dict) else {}), body


def text(manifest: Manifest, peft: Needed | None = None) -> str:
    """Return the text of the card in Markdown; free of paths of this computer.

    Args:
        manifest: What is told of.
        peft: The oldest PEFT that reads a LoRA.
    """
    base, purpose = manifest.base, _PURPOSES[manifest.head.task]
    method = {name: value for name, value in manifest.method.items() if value is not None}
    rows = [
        ("base", base.identity + (f" at {base.revision}" if base.revision else "")),
        ("weights of the base", f"`{base.fingerprint}`"),
        ("method", ", ".join(f"{name} {_plain(value)}" for name, value in method.items()) or "—"),
        *([("prompt format", _framing(manifest))] if writes(manifest.head) else []),
        *([("text", "composed letters (Unicode NFC)")] if manifest.normalise else []),
        *([("labels", _listed(manifest.head.labels))] if manifest.head.labels else []),
        *([("changed since", "; ".join(manifest.surgery))] if manifest.surgery else []),
        *([("new tokens", f"{len(manifest.added_tokens):,}")] if manifest.added_tokens else []),
        *((name.replace("_", " "), _plain(value)) for name, value in manifest.metrics.items()),
        *([("training rows", f"`{manifest.data}`")] if manifest.data else []),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()) or "—"),
    ]
    parts = [
        f"# {_what(manifest)} made from {base.identity}",
        "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]),
        USE,
        f"With [lorakit](https://pypi.org/project/lorakit): `lorakit {purpose.arguments}`.{_base_needed(manifest)}",
        _elsewhere(manifest, peft),
        "## Intended use and limits",
        f"{purpose.limits} like those it was trained on. What it says may be wrong; check it before relying on it.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _datasets(folder: Path) -> list[str]:
    """Return the Hub's names of the training rows, as recipe.yaml has them."""
    file = folder / "recipe.yaml"
    recipe = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    data = recipe.get("data") if isinstance(recipe, dict) else None
    train = data.get("train") if isinstance(data, dict) else None
    sources = train if isinstance(train, list) else [train]
    paths = [source.get("path") if isinstance(source, dict) else source for source in sources]
    return [path.removeprefix(_HUB) for path in paths if isinstance(path, str) and path.startswith(_HUB)]


def _what(manifest: Manifest) -> str:
    """Return what the folder holds; a whole model that was only stored anew has no adapter in it."""
    only_stored = manifest.form == "merged" and manifest.method.get("name") == "full"
    return _WHAT["full" if only_stored else manifest.form]


def _framing(manifest: Manifest) -> str:
    style = manifest.style
    if style.format == "prompt_completion":
        return f"prompt, then `{json.dumps(style.separator, ensure_ascii=False)}`, then the answer"
    return "chat, by the chat template in manifest.json" if style.format == "chat" else "plain text"


def _base_needed(manifest: Manifest) -> str:
    """Return how lorakit is told of a base that no name leads to."""
    local = manifest.base.identity.startswith("local:") and manifest.form in ("lora", "changed")
    return " It needs the base: `--base FOLDER`." if local else ""


def _elsewhere(manifest: Manifest, peft: Needed | None) -> str:
    if manifest.form == "lora" and manifest.rounded is not None:
        return (
            f"The adapter is stored in {manifest.rounded}, which PEFT does not read; for a pair that it does: "
            "`lorakit adapter quantize THIS_FOLDER --to bf16 -o NEW_FOLDER`."
        )
    if manifest.form == "changed":
        return "For other libraries, make a whole model of it: `lorakit merge THIS_FOLDER -o NEW_FOLDER`."
    auto = AUTO[manifest.head.task]
    if manifest.form != "lora":
        return f'With transformers: `{auto}.from_pretrained("THIS_FOLDER")`.'
    base = manifest.base
    on_hub = ":" not in base.identity
    arguments = [f'"{base.identity if on_hub else "BASE"}"']
    arguments += [f'revision="{base.revision}"'] if base.revision else []
    arguments += [f"num_labels={len(manifest.head.labels)}"] if manifest.head.labels else []
    arguments += [f'problem_type="{manifest.head.problem}"'] if manifest.head.problem else []
    tokenizer = '"THIS_FOLDER"' if manifest.added_tokens else arguments[0]
    code = [
        "from peft import PeftModel",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f"base = {auto}.from_pretrained({', '.join(arguments)})",
        f"tokenizer = AutoTokenizer.from_pretrained({tokenizer})",
        *(_GROWN if manifest.added_tokens else ()),
        'model = PeftModel.from_pretrained(base, "THIS_FOLDER").eval()',
    ]
    oldest = f" {peft.told}" if peft is not None else ""
    parts = [
        f"With [PEFT](https://github.com/huggingface/peft){oldest}"
        + (":" if on_hub else f", where BASE is a folder with {base.identity}:"),
        "\n".join(["```python", *code, "```"]),
        f'With transformers beside PEFT, in one call: `{auto}.from_pretrained("THIS_FOLDER")`.'
        if on_hub and not (manifest.added_tokens or manifest.head.labels)
        else "",
        _BIASED if manifest.added_tokens else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _listed(labels: tuple[str, ...]) -> str:
    more = f" and {len(labels) - 20:,} more" if len(labels) > 20 else ""
    return ", ".join(f"`{label}`".replace("|", "\\|") for label in labels[:20]) + more


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return f"of {len(value):,} layers {min(value.values()):g} to {max(value.values()):g}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
