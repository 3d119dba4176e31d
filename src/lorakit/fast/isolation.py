"""Proof at the start of a run that packed rows do not see each other: two of them together score as each alone.

Some model types ignore a registered attention function without an error, and would let rows see each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from lorakit.families import Family
from lorakit.fast import pooling, varlen, widened

_LENGTHS = (5, 8)


def proves_isolated(model: Any, pools: Family | None = None) -> str:
    """Compare a packed forward of two segments with the two alone; return why packing must not be used, or "".

    Args:
        model: In eval mode, loaded with `attn_implementation` = `varlen.NAME`.
        pools: Family of a model whose head scores whole rows (`fast/pooling.py`); None: it scores positions.
    """
    layers, rows = _attention_layers(model), _rows(model)
    try:
        with torch.no_grad():
            alone = [_scores(model, (ids_T,), pools) for ids_T in rows]
            varlen.calls = 0
            packed = _scores(model, rows, pools)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        return f"this model type refuses it ({error})"
    if varlen.calls != layers:
        return f"its attention does not go through the interface ({varlen.calls} calls for {layers} layers)"
    if packed.shape != torch.cat(alone).shape:
        return "its scores are of whole rows, not of positions"
    difference = (packed - torch.cat(alone)).abs().max().item()
    bound = 1e-4 * max(1.0, packed.abs().max().item())
    return "" if difference <= bound else f"packed and single rows differ by {difference:.1e}"


def widens(model: Any, pools: Family | None = None) -> bool:
    """Whether attention keeps states in bfloat16 (`fast/widened.py`) in a step of training, found out by such a one.

    Args:
        model: On the processor, packed, as it is going to be trained with products in bfloat16.
        pools: As of `proves_isolated`.
    """
    before, training = widened.calls, model.training
    model.train()
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), torch.random.fork_rng(devices=[]):
            _scores(model, _rows(model), pools)
    finally:
        model.train(training)
    return widened.calls > before


def _rows(model: Any) -> list[Tensor]:
    """Return two rows of ids, without padding among them, by which a decoder's head would find an earlier end."""
    generator = torch.Generator().manual_seed(0)
    # Not of the embeddings, which PEFT wraps where new tokens learn.
    vocabulary, padding = model.config.vocab_size, model.config.pad_token_id or 0
    drawn = [torch.randint(0, vocabulary - 1, (length,), generator=generator) for length in _LENGTHS]
    return [ids_T + (ids_T >= padding) for ids_T in drawn]


def _scores(model: Any, rows: Sequence[Tensor], pools: Family | None) -> Tensor:
    """Return what the model makes of rows packed into one: scores or states of positions, or one score a row."""
    lengths = tuple(len(ids_T) for ids_T in rows)
    ids_1T = torch.cat(list(rows))[None]
    inputs = {"input_ids": ids_1T}
    segments = {ids_1T.shape[1]: lengths}
    if model.config.is_encoder_decoder:
        # Of other lengths than the sources, as it is in training.
        written = [ids_T[: len(ids_T) // 2] for ids_T in rows]
        inputs["decoder_input_ids"] = torch.cat(written)[None]
        segments[inputs["decoder_input_ids"].shape[1]] = tuple(len(ids_U) for ids_U in written)
    else:
        inputs["position_ids"] = varlen.positions(lengths)[None]
    device = next(model.parameters()).device
    placed = {name: value.to(device) for name, value in inputs.items()}
    arguments = {**placed, "segment_lengths": segments, "use_cache": False}
    if pools is None:
        return cast(Tensor, model(**arguments)[0][0]).float()
    if len(rows) == 1:
        # As the model itself finds the state that its head reads.
        return cast(Tensor, model(**arguments).logits).float()
    with pooling.pooled(model, pools, lengths) as scored:
        return scored(model(**arguments)).float()


def _attention_layers(model: Any) -> int:
    """Return how often one forward pass attends; a T5's decoder does so twice a block."""
    relative = sum(hasattr(module, "has_relative_attention_bias") for module in model.modules())
    return relative or int(model.config.num_hidden_layers)
