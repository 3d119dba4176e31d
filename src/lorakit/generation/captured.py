"""Steps over tensors that stay where they are, which a GPU captures once and replays.

A step of few rows takes a GPU less time than Python needs to launch its kernels. A CUDA graph launches them at once,
but with the same shapes and addresses each time: so keys and values lie in buffers of a fixed capacity, of which a mask
shows what has been read, and nothing is looked at on the way. Rows and capacity are powers of two, so that few graphs
serve all batches. The plain twin is `Context.read`.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lorakit.errors import LorakitError
from lorakit.generation import caching
from lorakit.generation.context import Context

_LEAST_CAPACITY = 128
_WARM_UPS = 3
"""Steps on a stream of their own before one is captured, in which libraries allocate what they keep."""


class Step:
    """One token more for each of B rows, in buffers of C columns.

    Args:
        model: A decoder in eval mode.
        buffers: Keys and values of each layer, shape (B, K, C, E).
    """

    def __init__(self, model: PreTrainedModel, buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
        rows, _, self.capacity, _ = buffers[0][0].shape
        device = buffers[0][0].device
        self._model = model
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.ids_B1 = torch.zeros((rows, 1), dtype=torch.int64, device=device)
        self.mask_BC = torch.zeros((rows, self.capacity), dtype=torch.bool, device=device)
        self.column_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self.cache = DynamicCache()
        self.cache.layers = [caching.FixedLayer(*pair, self.column_1) for pair in buffers]
        self._captured = self._capture() if device.type == "cuda" else None

    def __call__(self) -> Tensor:
        """Read `ids_B1` into the next column; returns logits (B, V), float32, which the next step overwrites."""
        if self._captured is None:
            return self.run()
        graph, logits_BV = self._captured
        graph.replay()
        return logits_BV

    def run(self) -> Tensor:
        """The same, kernel by kernel: what a graph captures."""
        self.mask_BC.index_fill_(1, self.column_1, True)
        # Plain attention knows no other mask than one that is added to the scores.
        hidden_BC = torch.zeros_like(self.mask_BC, dtype=self._model.dtype)
        hidden_BC.masked_fill_(~self.mask_BC, torch.finfo(self._model.dtype).min)
        positions = {"position_ids": self.mask_BC.sum(dim=1, keepdim=True) - 1} if self._takes_positions else {}
        output = self._model(
            input_ids=self.ids_B1,
            attention_mask=hidden_BC[:, None, None],
            past_key_values=self.cache,
            use_cache=True,
            **positions,
        )
        self.column_1.add_(1)
        logits_BV: Tensor = output.logits[:, -1].float()
        return logits_BV

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Capture a step as torch's documentation of CUDA graphs says; returns the graph, and where its logits lie."""
        with torch.cuda.device(self.ids_B1.device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    self.run()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits_BV = self.run()
        return graph, logits_BV


class CapturedSteps:
    """The steps of one model, one for each number of rows and each capacity, over the same memory."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._steps: dict[tuple[int, int], Step] = {}
        self._memory: list[Tensor] = []
        self._room = 0
        """Columns of all rows that the memory holds."""
        self._inside: weakref.ref[CapturedContext] | None = None
        self.taken = 0
        """Steps so far."""

    def enter(self, context: CapturedContext, rows: int, columns: int, like: Sequence[Any]) -> Step:
        """Return a step of so many rows and columns at least, for layers `like` these; `context` has its memory now."""
        before = None if self._inside is None else self._inside()
        if before is not None:
            before.leave()
        self._inside = weakref.ref(context)
        rows, capacity = _power_of_two(rows), max(_LEAST_CAPACITY, _power_of_two(columns))
        held = [tensor for layer in like for tensor in (layer.keys, layer.values)]
        shapes = [torch.Size((rows, tensor.shape[1], capacity, tensor.shape[3])) for tensor in held]
        if rows * capacity > self._room:
            self._steps.clear()
            self._room = rows * capacity
            # Zeros, since what lies in a hidden column is multiplied by zero, which a NaN would survive.
            self._memory = [tensor.new_zeros(shape.numel()) for tensor, shape in zip(held, shapes, strict=True)]
        if (rows, capacity) not in self._steps:
            views = [flat[: shape.numel()].view(shape) for flat, shape in zip(self._memory, shapes, strict=True)]
            self._steps[rows, capacity] = Step(self._model, list(zip(views[::2], views[1::2], strict=True)))
        return self._steps[rows, capacity]


class CapturedContext(Context):
    """Rows that are read one token at a time by captured steps, and otherwise like those of a `Context`."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], steps: CapturedSteps) -> None:
        super().__init__(model, prompts)
        self._steps = steps
        self._step: Step | None = None
        """What holds keys, values and mask; None where this context has its own."""
        self._width = 0
        """Columns that the step has read."""

    def read(self, tokens_BN: Tensor) -> Tensor:
        """Append tokens to each row, shape (B, N); returns logits (B, N, V), float32, until the next are read."""
        if tokens_BN.shape[1] > 1:
            self.leave()
            return super().read(tokens_BN)
        if self._step is None or self._width == self._step.capacity:
            self.leave()
            self._step = self._entered()
        rows = len(tokens_BN)
        self._step.ids_B1[:rows] = tokens_BN
        self._width += 1
        self._steps.taken += 1
        return self._step()[:rows, None]

    def _entered(self) -> Step:
        """Give keys, values and mask to a step."""
        rows, self._width = self._mask_BT.shape
        step = self._steps.enter(self, rows, self._width + 1, self._cache.layers)
        for layer, fixed in zip(self._cache.layers, step.cache.layers, strict=True):
            fixed.keys[:rows, :, : self._width] = layer.keys
            fixed.values[:rows, :, : self._width] = layer.values
            layer.hold(layer.keys.new_empty(0), layer.values.new_empty(0))
        step.mask_BC.zero_()
        step.mask_BC[:rows, : self._width] = self._mask_BT.bool()
        step.column_1.fill_(self._width)
        return step

    def leave(self) -> None:
        """Take keys, values and mask back from the step."""
        if self._step is None:
            return
        rows = len(self._mask_BT)
        for layer, fixed in zip(self._cache.layers, self._step.cache.layers, strict=True):
            layer.hold(*(held[:rows, :, : self._width].clone() for held in (fixed.keys, fixed.values)))
        self._mask_BT = self._step.mask_BC[:rows, : self._width].to(self._mask_BT.dtype)
        self._step = None

    def forget(self, count: int) -> None:
        """Drop the last `count` tokens of each row."""
        if count:
            self.leave()
        super().forget(count)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be left out, or stand more than once."""
        if list(rows) != list(range(len(self._mask_BT))):
            self.leave()
        super().select(rows)

    def join(self, other: Context) -> None:
        """Append the rows of `other`, whose next token then stands in the same column."""
        self.leave()
        super().join(other)


@torch.inference_mode()
def prove(model: PreTrainedModel) -> tuple[CapturedSteps | None, str]:
    """Compare two steps over fixed buffers with plain ones; return what takes them, or None and why not.

    Args:
        model: A model that writes, in eval mode, on its device.
    """
    if model.config.is_encoder_decoder:
        return None, "an encoder-decoder reads its source at every step"
    if not getattr(model, "_can_compile_fullgraph", False):
        return None, f"type {model.config.model_type} takes no buffers of fixed size"
    if not caching.forgets(caching.growing(model.config)):
        return None, f"type {model.config.model_type} attends through a window"
    steps = CapturedSteps(model)
    # Few ids and positions, since on a GPU one that the model lacks would end the process.
    prompts = [[0, 1], [1]]
    plain, fixed = Context(model, prompts), CapturedContext(model, prompts, steps)
    try:
        for context in (plain, fixed):
            context.read_prompts()
        for token in (0, 1):
            tokens_B1 = torch.full((2, 1), token, device=model.device)
            expected, found = (context.read(tokens_B1) for context in (plain, fixed))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, LorakitError) as error:
        return None, f"type {model.config.model_type} refuses it ({error})"
    difference = (found - expected).abs().max().item()
    bound = (1e-4 if model.dtype == torch.float32 else 3e-2) * max(1.0, expected.abs().max().item())
    steps.taken = 0
    return (steps, "") if difference <= bound else (None, f"scores differ by {difference:.1e}")


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
