"""ONNX files as onnxruntime reads them, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorakit.adapters.export.onnx_file import BRANCH
from lorakit.errors import CheckpointError, Interrupted

# Read at its import, which otherwise begins a database of events in the home folder, to be sent.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

NAME = f"onnxruntime {onnxruntime.__version__}"

Choice = Callable[[Tensor, Sequence[int]], int]
"""Which token comes next: by its logits, shape (V,), and what the decoder has read."""


def likeliest(logits_V: Tensor, read: Sequence[int]) -> int:
    """Return the token of the highest score."""
    return int(logits_V.argmax())


class Session:
    """One file, loaded; arrays go in and come out by their names.

    Raises:
        CheckpointError: onnxruntime does not load it.
    """

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Interrupted:
            raise
        # Its errors have no base class of their own.
        except Exception as problem:
            raise CheckpointError(f"onnxruntime does not load what was written: {problem}") from problem
        self.inputs = {each.name: each for each in self._session.get_inputs()}
        self.outputs = [each.name for each in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all outputs; inputs that the file does not have are left out.

        Raises:
            CheckpointError: onnxruntime cannot compute it.
        """
        given = {name: tensor.numpy() for name, tensor in inputs.items() if name in self.inputs}
        try:
            found = self._session.run(self.outputs, given)
        except Interrupted:
            raise
        except Exception as problem:
            raise CheckpointError(f"onnxruntime does not compute what was written: {problem}") from problem
        return {name: torch.from_numpy(array) for name, array in zip(self.outputs, found, strict=True)}

    def nothing(self, rows: int) -> dict[str, Tensor]:
        """Return a past of length 0 for so many rows."""
        shapes = {name: each.shape for name, each in self.inputs.items() if name.startswith("past_key_values.")}
        return {name: torch.zeros(rows, heads, 0, width) for name, (_, heads, _, width) in shapes.items()}


class Scores:
    """A model that scores texts or their tokens: ``model.onnx``."""

    def __init__(self, folder: Path) -> None:
        self._session = Session(folder / "model.onnx")

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Return what the head gives for a padded batch."""
        if "token_type_ids" in self._session.inputs:
            inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
        return self._session(inputs)


class Decoder:
    """A decoder that writes: ``model.onnx``."""

    def __init__(self, folder: Path, ends: frozenset[int] = frozenset()) -> None:
        self._session = Session(folder / "model.onnx")
        self._ends = ends

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Return the ``logits`` of a padded batch, read from its beginning."""
        return {"logits": self.read(input_ids, attention_mask, self._session.nothing(len(input_ids)))[0]}

    def read(self, ids_BN: Tensor, mask_BT: Tensor, past: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Read N tokens of each row behind a past.

        Args:
            ids_BN: Tokens.
            mask_BT: 1 for each token of past and present, 0 for padding.
            past: Keys and values of T - N tokens.

        Returns:
            Logits, shape (B, N, V), and the past of what comes next.
        """
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        inputs = {"input_ids": ids_BN, "attention_mask": mask_BT, "position_ids": positions_BT[:, -ids_BN.shape[1] :]}
        return _split(self._session({**inputs, **past}))

    def scores(self, ids: Sequence[int]) -> Tensor:
        """Return the logits after each token of a text, shape (T, V), float32."""
        ids_1T = torch.tensor([list(ids)])
        return self(ids_1T, torch.ones_like(ids_1T))["logits"][0]

    def continued(self, ids: Sequence[int], most: int) -> list[int]:
        """Return the greedy continuation of a text, token by token from the cache, up to and with a token that ends."""
        mask_1T = torch.ones(1, len(ids), dtype=torch.int64)
        logits_1NV, past = self.read(torch.tensor([list(ids)]), mask_1T, self._session.nothing(1))
        written = [likeliest(logits_1NV[0, -1], ids)]
        while len(written) < most and written[-1] not in self._ends:
            mask_1T = torch.ones(1, len(ids) + len(written), dtype=torch.int64)
            logits_1NV, past = self.read(torch.tensor([written[-1:]]), mask_1T, past)
            written.append(likeliest(logits_1NV[0, -1], ids))
        return written


class EncoderDecoder:
    """An encoder-decoder that writes: ``encoder_model.onnx`` and ``decoder_model_merged.onnx``."""

    def __init__(
        self, folder: Path, start: int, ends: frozenset[int] = frozenset(), choice: Choice = likeliest
    ) -> None:
        self._encoder = Session(folder / "encoder_model.onnx")
        self._decoder = Session(folder / "decoder_model_merged.onnx")
        self._start, self._ends, self._choice = start, ends, choice

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> dict[str, Tensor]:
        """Return the ``logits`` of padded targets for padded sources."""
        source = self._source(input_ids, attention_mask)
        return {"logits": self._read(decoder_input_ids, source, None)[0]}

    def scores(self, ids: Sequence[int], *before: Sequence[int]) -> Tensor:
        """Return the logits after each token that the decoder has read (`before`), shape (U, V), float32."""
        ids_1T = torch.tensor([list(ids)])
        return self(ids_1T, torch.ones_like(ids_1T), torch.tensor([list(*before)]))["logits"][0]

    def continued(self, ids: Sequence[int], most: int) -> list[int]:
        """Return the greedy answer to a source, token by token from the cache, up to and with a token that ends."""
        ids_1T = torch.tensor([list(ids)])
        source, read, past = self._source(ids_1T, torch.ones_like(ids_1T)), [self._start], None
        while len(read) <= most and (len(read) == 1 or read[-1] not in self._ends):
            logits_11V, past = self._read(torch.tensor([read[-1:]]), source, past)
            read.append(self._choice(logits_11V[0, -1], read))
        return read[1:]

    def _source(self, ids_BT: Tensor, mask_BT: Tensor) -> dict[str, Tensor]:
        states_BTD = self._encoder({"input_ids": ids_BT, "attention_mask": mask_BT})["last_hidden_state"]
        return {"encoder_hidden_states": states_BTD, "encoder_attention_mask": mask_BT}

    def _read(
        self, ids_BN: Tensor, source: Mapping[str, Tensor], past: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        goes_on = torch.tensor([past is not None])
        if past is None:
            past = self._decoder.nothing(len(ids_BN))
        return _split(self._decoder({"input_ids": ids_BN, **source, **past, BRANCH: goes_on}))


def _split(outputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits, and what was given to be read again as the past."""
    logits_BNV: Any = outputs.pop("logits")
    return logits_BNV, {name.replace("present", "past_key_values", 1): each for name, each in outputs.items()}
