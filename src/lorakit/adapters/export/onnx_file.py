"""A graph as an ONNX file: traced by transformers' own exporter, its axes named, two steps of a decoder in one file."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir
from torch.export import Dim

from lorakit.adapters.export.onnx_graphs import Axes, Graph
from lorakit.checkpoints.loading import quiet
from lorakit.errors import Interrupted, LorakitError

INLINE = 2_000_000_000
"""Most bytes of weights in the file itself: protobuf ends at 2 GiB. More stand beside it."""

BRANCH = "use_cache_branch"
"""Input of a merged decoder: whether there is a past; shape (1,), bool."""


def traced(graph: Graph) -> onnx_ir.Model:
    """Return a graph as ONNX.

    Raises:
        LorakitError: The exporter does not follow the model.
    """
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    shapes = _dynamic(graph.axes)
    try:
        with _unsaid():
            exported: Any = OnnxExporter().export(
                graph.module, dict(graph.inputs), OnnxConfig(dynamic=True, dynamic_shapes=shapes)
            )
    except Interrupted:
        raise
    # torch's tracer, onnxscript and the exporter have errors of many kinds; each means that it cannot follow.
    except Exception as problem:
        first = str(problem).strip().split("\n", 1)[0]
        raise LorakitError(
            f"transformers' exporter does not turn this model into ONNX ({type(problem).__name__}: {first}). Use --to "
            f"safetensors."
        ) from problem
    # transformers 5.17 returned torch's own program.
    model: onnx_ir.Model = exported.program if hasattr(exported, "program") else exported.model
    _name_axes(model, graph.axes)
    _forget_origins(model)
    return model


def merged(first: onnx_ir.Model, later: onnx_ir.Model) -> onnx_ir.Model:
    """Return a decoder's first step and every later one as one model with one set of weights.

    Which of them runs is the value of `BRANCH`, as in optimum's ``decoder_model_merged.onnx``.
    """
    inputs = {value.name: value for model in (first, later) for value in model.graph.inputs}
    outer = [_like(value) for value in inputs.values()]
    shared = {value.name: value for value in outer}
    branch = onnx_ir.Value(name=BRANCH, shape=onnx_ir.Shape([1]), type=onnx_ir.TensorType(onnx_ir.DataType.BOOL))
    weights: dict[str, onnx_ir.Value] = {}
    names = [value.name for value in first.graph.outputs]
    branches = [
        onnx_ir.AttrGraph(attribute, _as_branch(model.graph, step, names, shared, weights))
        for attribute, step, model in (("then_branch", "later", later), ("else_branch", "first", first))
    ]
    choice = onnx_ir.Node("", "If", [branch], branches, num_outputs=len(names), name="step")
    for output, value in zip(choice.outputs, later.graph.outputs, strict=True):
        output.name, output.shape, output.type = value.name.partition("/")[2], value.shape, value.type
    graph = onnx_ir.Graph(
        [*outer, branch],
        choice.outputs,
        nodes=[choice],
        initializers=list(weights.values()),
        opset_imports=first.graph.opset_imports,
        name="decoder",
    )
    return onnx_ir.Model(graph, ir_version=first.ir_version)


def save(model: onnx_ir.Model, folder: Path, name: str) -> None:
    """Write ``NAME.onnx`` and, where the weights are too large for one file, ``NAME.onnx_data`` beside it."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    onnx_ir.save(model, folder / f"{name}.onnx", external_data=f"{name}.onnx_data" if size > INLINE else None)


def _dynamic(axes: Mapping[str, Any] | Axes) -> dict[Any, Any]:
    return {name: _dynamic(each) if isinstance(each, Mapping) else Dim.DYNAMIC for name, each in axes.items()}


def _flat(axes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Axes]]:
    for name, each in axes.items():
        if all(isinstance(key, int) for key in each):
            yield f"{prefix}{name}", each
        else:
            yield from _flat(each, f"{prefix}{name}.")


def _name_axes(model: onnx_ir.Model, axes: Mapping[str, Any]) -> None:
    """Call what varies by its name in place of the tracer's (``s70``)."""
    known = dict(_flat(axes))
    names = {
        str(value.shape[axis]): name
        for value in model.graph.inputs
        for axis, name in known[value.name].items()
        if value.shape is not None and not isinstance(value.shape[axis], int)
    }
    symbols = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")

    def renamed(size: int | onnx_ir.SymbolicDim) -> int | str | None:
        if isinstance(size, int):
            return size
        return size.value and symbols.sub(lambda found: names[found[0]], size.value)

    produced = [value for node in model.graph.all_nodes() for value in node.outputs]
    for value in (*model.graph.inputs, *produced):
        if value.shape is not None:
            value.shape = onnx_ir.Shape(renamed(size) for size in value.shape)


def _forget_origins(model: onnx_ir.Model) -> None:
    """Take out what the tracer notes of each node: lines of source files, with their paths on this computer."""
    nodes = list(model.graph.all_nodes())
    values = [value for node in nodes for value in node.outputs]
    for each in (model, model.graph, *nodes, *values, *model.graph.inputs, *model.graph.initializers.values()):
        each.metadata_props.clear()
        each.doc_string = None


def _like(value: onnx_ir.Value) -> onnx_ir.Value:
    return onnx_ir.Value(name=value.name, shape=value.shape, type=value.type)


def _as_branch(
    graph: onnx_ir.Graph,
    step: str,
    names: list[str | None],
    shared: Mapping[str | None, onnx_ir.Value],
    weights: dict[str, onnx_ir.Value],
) -> onnx_ir.Graph:
    """Let a graph read inputs and weights of the one around it, and give its own values a name of their own.

    Args:
        graph: Changed, and returned.
        step: What the names of its values begin with.
        names: Its outputs, in their order.
        shared: Inputs of the graph around it, by name.
        weights: Of the graph around it, by name; those that it lacks are added.
    """
    replace = onnx_ir.convenience.replace_all_uses_with
    for value in list(graph.inputs):
        replace(value, shared[value.name])
    graph.inputs.clear()
    for name, value in list(graph.initializers.items()):
        del graph.initializers[name]
        known = weights.get(name)
        if known is not None and _is_same(known, value):
            replace(value, known)
        else:
            value.name = name if known is None else f"{step}/{name}"
            weights[value.name] = value
    for node in graph.all_nodes():
        node.name = f"{step}/{node.name}"
        for value in node.outputs:
            value.name = f"{step}/{value.name}"
    graph.name = step
    assert [value.name for value in graph.outputs] == [f"{step}/{name}" for name in names]
    return graph


def _is_same(one: onnx_ir.Value, other: onnx_ir.Value) -> bool:
    first, second = one.const_value, other.const_value
    if first is None or second is None or (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    return bool((first.numpy() == second.numpy()).all())


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Keep from the screen what torch, onnxscript and transformers say while they trace."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
