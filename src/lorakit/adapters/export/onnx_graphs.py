"""What a model is as ONNX graphs: their names, inputs and outputs, as optimum and transformers.js have them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from lorakit.types import Head

Axes = dict[int, str]
"""Number of an axis that varies -> its name in the file."""

SCORES = ("logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits")
"""What a head may give."""

_BATCH, _LENGTH, _PAST = "batch_size", "sequence_length", "past_sequence_length"
_ALL = f"{_PAST} + {_LENGTH}"
_READ = "encoder_sequence_length"
_TEXT: Axes = {0: _BATCH, 1: _LENGTH}
_READ_TEXT: Axes = {0: _BATCH, 1: _READ}

_ROWS, _SOURCE, _BEFORE, _NOW = 2, 5, 3, 4
"""Sizes to trace with: none is 1, which a trace takes for a constant, and no two are equal, which it would keep so."""


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph, ready to be traced."""

    module: nn.Module
    inputs: dict[str, Any]
    """Tensors to trace with, by name; a mapping of mappings is named with dots: ``past_key_values.0.key``."""
    axes: dict[str, Any]
    """`Axes` of each input, in the same order and depth."""


def graphs_of(model: PreTrainedModel, head: Head) -> dict[str, Graph]:
    """Return the graphs of a model by the name of their file.

    An encoder, and whatever scores whole texts or their tokens, is one graph. A decoder that writes is one graph, which
    reads a text (with a past of length 0) as well as what goes on from a past. An encoder-decoder that writes is its
    encoder, its decoder's first step, and every later one, for which the source's keys and values are known.

    Args:
        model: In eval mode, on the CPU, in float32, without adapters.
        head: Its output.
    """
    if head.task == "causal_lm":
        return {"model": _decoder(model)}
    if head.task == "seq2seq_lm":
        return {"encoder_model": _encoder(model), **_decoders(model)}
    inputs = _text(_SOURCE)
    if reads_segments(model):
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    return {"model": Graph(_Scores(model), inputs, dict.fromkeys(inputs, _TEXT))}


def reads_segments(model: PreTrainedModel) -> bool:
    """Whether a model tells the first from the second of two texts."""
    return _takes(model, "token_type_ids") and getattr(model.config, "type_vocab_size", 0) > 1


class _Scores(nn.Module):
    """Scores of a text or of its tokens."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.arguments = {"use_cache": False} if hasattr(model.config, "use_cache") else {}

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        output = self.model(**inputs, **self.arguments)
        return {name: output[name] for name in SCORES if name in output}


class _Encoder(nn.Module):
    """The states of a source."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.get_encoder()

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return {"last_hidden_state": self.model(**inputs).last_hidden_state}


class _Decoder(nn.Module):
    """Scores of tokens behind a past, and the past of what comes next."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, past_key_values: Mapping[str, Mapping[str, Tensor]], **inputs: Tensor) -> dict[str, Any]:
        # Without a config each layer keeps all that was read; windows are a matter of the mask.
        cache = DynamicCache([(layer["key"], layer["value"]) for layer in past_key_values.values()])
        logits_BTV = self.model(**inputs, past_key_values=cache, use_cache=True).logits
        return {"logits": logits_BTV, "present": dict(_layers(cache))}


class _WritingDecoder(nn.Module):
    """The same of an encoder-decoder, whose past is what was written and what was made of the source."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        encoder_attention_mask: Tensor,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        past_key_values: Mapping[str, Mapping[str, Mapping[str, Tensor]]] | None = None,
    ) -> dict[str, Any]:
        layers = [] if past_key_values is None else list(past_key_values.values())
        written, read = (
            DynamicCache([(layer[part]["key"], layer[part]["value"]) for layer in layers])
            for part in ("decoder", "encoder")
        )
        cache = EncoderDecoderCache(written, read)
        logits_BTV = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_hidden_states),
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            past_key_values=cache,
            use_cache=True,
        ).logits
        # An output must not be an input as it is.
        sources = {number: {name: each.clone() for name, each in layer.items()} for number, layer in _layers(read)}
        present = {number: {"decoder": layer, "encoder": sources[number]} for number, layer in _layers(written)}
        return {"logits": logits_BTV, "present": present}


def _encoder(model: PreTrainedModel) -> Graph:
    inputs = _text(_SOURCE)
    return Graph(_Encoder(model), inputs, dict.fromkeys(inputs, _READ_TEXT))


def _decoder(model: PreTrainedModel) -> Graph:
    module, cache = _Decoder(model), DynamicCache()
    with torch.no_grad():
        model(**_text(_BEFORE), past_key_values=cache, use_cache=True)
    inputs: dict[str, Any] = {**_text(_NOW), "attention_mask": _text(_BEFORE + _NOW)["attention_mask"]}
    axes: dict[str, Any] = {"input_ids": _TEXT, "attention_mask": {0: _BATCH, 1: _ALL}}
    if _takes(model, "position_ids"):
        inputs["position_ids"] = torch.arange(_BEFORE, _BEFORE + _NOW).repeat(_ROWS, 1)
        axes["position_ids"] = _TEXT
    inputs["past_key_values"] = dict(_layers(cache))
    axes["past_key_values"] = _along(inputs["past_key_values"], {0: _BATCH, 2: _PAST})
    return Graph(module, inputs, axes)


def _decoders(model: PreTrainedModel) -> dict[str, Graph]:
    module, encoder = _WritingDecoder(model), _encoder(model)
    with torch.no_grad():
        inputs: dict[str, Any] = {
            "encoder_attention_mask": encoder.inputs["attention_mask"],
            "input_ids": _text(_BEFORE)["input_ids"],
            "encoder_hidden_states": encoder.module(**encoder.inputs)["last_hidden_state"],
        }
        past = module(**inputs)["present"]
    axes: dict[str, Any] = {
        "encoder_attention_mask": _READ_TEXT,
        "input_ids": _TEXT,
        "encoder_hidden_states": _READ_TEXT,
    }
    later = {**inputs, "input_ids": _text(_NOW)["input_ids"], "past_key_values": past}
    along = {
        number: {
            "decoder": _along(layer["decoder"], {0: _BATCH, 2: _PAST}),
            "encoder": _along(layer["encoder"], {0: _BATCH, 2: _READ}),
        }
        for number, layer in past.items()
    }
    return {
        "decoder_model": Graph(module, inputs, axes),
        "decoder_with_past_model": Graph(module, later, {**axes, "past_key_values": along}),
    }


def _text(length: int) -> dict[str, Tensor]:
    """Return rows of so many tokens; which ones does not matter."""
    ids_BT = torch.arange(_ROWS * length).reshape(_ROWS, length) % 5 + 3
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


def _takes(model: PreTrainedModel, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def _layers(cache: DynamicCache) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for number, layer in enumerate(cache.layers):
        yield str(number), {"key": layer.keys, "value": layer.values}


def _along(tensors: Mapping[str, Any], axes: Axes) -> dict[str, Any]:
    """Return `axes` for each tensor of nested mappings."""
    return {name: _along(each, axes) if isinstance(each, Mapping) else axes for name, each in tensors.items()}
