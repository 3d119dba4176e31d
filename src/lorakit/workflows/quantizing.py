"""Text written with weights in 8 bits: several times as fast on a processor, at a loss that is measured and told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorakit.errors import LorakitError, nearest
from lorakit.workflows.placing import SHORT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WIDTHS = ("int8",)
_TOKENS = 2048
"""Tokens of prompts that the loss is measured on, at most."""


def check_quantize(quantize: str | None, device: str, dtype: str) -> None:
    """Raise LorakitError where weights cannot be rounded so, or not there; loads nothing."""
    if quantize is None:
        return
    if quantize not in WIDTHS:
        raise LorakitError(f'quantize is "{quantize}"; must be int8. {nearest(quantize, WIDTHS)}'.rstrip())
    if device not in ("auto", "cpu") or SHORT.get(dtype, dtype) not in ("auto", "float32"):
        raise LorakitError(
            "--quantize int8 rounds float32 weights and computes on the processor; leave out --device and --dtype."
        )


def quantize(model: PreTrainedModel, prompts: Sequence[Sequence[int]], limit: int | None) -> str:
    """Round the weights of `model` to 8 bits; return what that changes, measured on prompts.

    Args:
        model: On the processor, in float32.
        prompts: Their ids.
        limit: Tokens that the model reads at most; None where nothing bounds it.

    Raises:
        LorakitError: This build of torch cannot multiply in 8 bits.
    """
    from lorakit.fast import products

    # An encoder-decoder reads prompts and does not write them.
    written = [] if model.config.is_encoder_decoder else prompts
    before = _loss(model, written, limit)
    try:
        products.take(model, "int8")
    except (RuntimeError, AttributeError) as error:
        raise LorakitError(f"this build of torch cannot multiply in 8 bits ({error}); leave out --quantize.") from error
    after = _loss(model, written, limit)
    if before is None or after is None:
        return "weights in 8 bits; the prompts hold no text to measure the change on"
    return f"weights in 8 bits; loss of the prompts {before:.3f} → {after:.3f} nats a token"


def _loss(model: PreTrainedModel, prompts: Sequence[Sequence[int]], limit: int | None) -> float | None:
    """Return the mean loss of next tokens in nats; None where no prompt has two tokens."""
    import torch
    from torch.nn.functional import cross_entropy

    total, count = 0.0, 0
    with torch.inference_mode():
        for ids in prompts:
            if len(ids) < 2 or count >= _TOKENS:
                continue
            read_1T = torch.tensor([ids[: min(limit or _TOKENS, _TOKENS)]])
            logits_TV = model(input_ids=read_1T).logits[0, :-1].float()
            total += float(cross_entropy(logits_TV, read_1T[0, 1:], reduction="sum"))
            count += len(logits_TV)
    return total / count if count else None
