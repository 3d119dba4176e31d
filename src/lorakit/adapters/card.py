"""README.md of a run or a merged model: what it is, what it was made from, how to use it. A model card on the Hub."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lorakit.adapters.manifest import Manifest
from lorakit.checkpoints.heads import AUTO, writes
from lorakit.types import HeadTask

_WHAT = {
    "lora": "A LoRA adapter",
    "changed": "The trained weights",
    "full": "A fine-tuned model",
    "merged": "A model with its adapter merged in",
}


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


def text(manifest: Manifest) -> str:
    """Return the card in Markdown, with the front matter that the Hub reads; free of paths of this computer."""
    base, purpose = manifest.base, _PURPOSES[manifest.head.task]
    on_hub = ":" not in base.identity
    front = [
        "---",
        f"library_name: {'peft' if manifest.form == 'lora' else 'transformers'}",
        *([f"base_model: {base.identity}"] if on_hub else []),
        f"pipeline_tag: {purpose.tag}",
        "tags: [lorakit]",
        "---",
    ]
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
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()) or "—"),
    ]
    parts = [
        "\n".join(front),
        f"# {_what(manifest)} made from {base.identity}",
        "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]),
        "## Use",
        f"With [lorakit](https://pypi.org/project/lorakit): `lorakit {purpose.arguments}`.",
        _elsewhere(manifest),
        "## Intended use and limits",
        f"{purpose.limits} like those it was trained on. What it says may be wrong; check it before relying on it.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(manifest: Manifest) -> str:
    """Return what the folder holds; a whole model that was only stored anew has no adapter in it."""
    only_stored = manifest.form == "merged" and manifest.method.get("name") == "full"
    return _WHAT["full" if only_stored else manifest.form]


def _framing(manifest: Manifest) -> str:
    style = manifest.style
    if style.format == "prompt_completion":
        return f"prompt, then `{json.dumps(style.separator, ensure_ascii=False)}`, then the answer"
    return "chat, by the chat template in manifest.json" if style.format == "chat" else "plain text"


def _elsewhere(manifest: Manifest) -> str:
    if manifest.form == "lora" and manifest.added_tokens:
        return (
            "With PEFT: the adapter holds the embeddings of its new tokens, for which the base first needs as many "
            "rows as the tokenizer beside it has tokens.\n\n"
            "```python\n"
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")\n'
            "if len(tokenizer) > base.config.vocab_size:\n"
            "    base.resize_token_embeddings(len(tokenizer))  # what the new rows hold does not matter\n"
            'model = PeftModel.from_pretrained(base, "THIS_FOLDER")\n'
            "```\n\n"
            "Where the output layer has a bias (BERT and its kin filling in words, Phi), PEFT 0.21 leaves it out: "
            "merge there first, `lorakit merge THIS_FOLDER -o NEW_FOLDER`."
        )
    if manifest.form == "lora":
        return "With PEFT: load the base with transformers, then `PeftModel.from_pretrained(base, THIS_FOLDER)`."
    if manifest.form == "changed":
        return "For other libraries, make a whole model of it: `lorakit merge THIS_FOLDER -o NEW_FOLDER`."
    return f"With transformers: `{AUTO[manifest.head.task]}.from_pretrained(THIS_FOLDER)`."


def _listed(labels: tuple[str, ...]) -> str:
    more = f" and {len(labels) - 20:,} more" if len(labels) > 20 else ""
    return ", ".join(f"`{label}`".replace("|", "\\|") for label in labels[:20]) + more


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return f"of {len(value):,} layers {min(value.values()):g} to {max(value.values()):g}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
