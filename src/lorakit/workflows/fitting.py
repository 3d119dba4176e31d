"""Whether an adapter, its base, its tokenizer and plain libraries fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorakit.adapters import changed, lora_file, plain
from lorakit.adapters.bundle import Target
from lorakit.checkpoints.finding import quiet
from lorakit.data.encoding import TextEncoder
from lorakit.errors import CheckpointError, LorakitError
from lorakit.workflows.probing import SENTENCES

if TYPE_CHECKING:
    from torch import Tensor, nn

_BOUND = 1e-5
"""Of the largest score: what rounding may change."""


def misfits(target: Target) -> list[str]:
    """Return a line for each tensor of an adapter that its base has no place for, or lacks; no weight is read.

    A whole model is held to its own config where it is loaded.
    """
    if target.form not in ("lora", "changed"):
        return []
    skeleton = target.base.skeleton(target.head)
    if target.adapter is None:
        changed.read(target.folder, skeleton, target.trained)
        return []
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    with torch.device("meta"), quiet():
        try:
            wrapped = get_peft_model(skeleton, target.adapter.to_peft())
        except ValueError as problem:
            raise CheckpointError(f"the adapter does not fit its base: {problem}") from problem
        expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return lora_file.misfits(expected, lora_file.infos(lora_file.weight_file(target.folder)))


def template_faults(target: Target) -> list[str]:
    """Return what is wrong with the chat template: it cannot be filled in, or the tokenizer brings another one."""
    style = target.style
    try:
        TextEncoder(target.tokenizer, style).chat_prompt([{"role": "user", "content": "?"}])
    except LorakitError as problem:
        return [f"the chat template cannot be filled in: {problem} Use another copy."]
    own = target.tokenizer.chat_template
    if style.format == "chat" and own and own != style.chat_template:
        return ["the tokenizer's chat template is not that of the training in manifest.json. Use another copy."]
    return []


def with_plain_libraries(target: Target) -> tuple[str, list[str]]:
    """Compare a target with what PEFT and transformers make of its files by themselves.

    Returns:
        What holds, in words, and what does not.
    """
    import torch

    library = "PEFT" if target.adapter is not None else "transformers"
    own = list(_scores(target.load("float32"), target))
    model, unread = plain.load(target)
    faults = [f"{library} alone takes not all tensors: {line}. Use another copy." for line in unread]
    if faults:
        return "", faults
    pairs = list(zip(own, _scores(model, target), strict=True))
    largest = float(torch.stack([one.abs().max() for one, _ in pairs]).max())
    # Written so that NaN is a fault too, which Python's `max` would pass over where it is not the first.
    difference = float(torch.stack([(one - other).abs().max() for one, other in pairs]).max())
    if not difference <= _BOUND * largest:
        faults = [
            f"{library} alone gives scores that differ by {difference:.1e} (of {largest:.3g} at most): merge it first, "
            f"lorakit merge, and share the merged model."
        ]
    alike = "bit for bit" if difference == 0 else f"up to {difference:.1e} of {largest:.3g}"
    return f"{library} alone takes every tensor and gives the same scores, {alike}", faults


def _scores(model: nn.Module, target: Target) -> Iterator[Tensor]:
    """Yield what a model says of some sentences, each read alone so that nothing pads it."""
    import torch

    for sentence in SENTENCES[:2]:
        ids = target.tokenizer(sentence, return_tensors="pt").input_ids[:, : target.base.max_positions]
        given: dict[str, Any] = {"input_ids": ids}
        if target.head.task == "seq2seq_lm":
            given["decoder_input_ids"] = ids
        with torch.inference_mode(), quiet():
            outputs = model(**given)
        yield from (scores for name, scores in outputs.items() if name.endswith("logits"))
