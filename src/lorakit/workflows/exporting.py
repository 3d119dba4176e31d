"""`lorakit export`: a target in the format of another program, read back there before it gets its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lorakit.adapters.bundle import Target, open_target
from lorakit.checkpoints.folders import check_destination, check_file, whole_file, whole_folder
from lorakit.errors import LorakitError, nearest
from lorakit.workflows.export_order import Exporter, Order, Proof
from lorakit.workflows.placing import check_range

EXPORTERS = {
    "gguf": "lorakit.workflows.export_gguf:Gguf",
    "gguf-lora": "lorakit.workflows.export_gguf_lora:GgufLora",
    "onnx": "lorakit.workflows.export_onnx:Onnx",
    "ollama": "lorakit.workflows.export_ollama:Ollama",
    "safetensors": "lorakit.workflows.export_safetensors:Safetensors",
}
"""Name of a format -> module and class, imported on use."""

DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "q8_0": "q8_0"}
"""Short name of a dtype -> torch's; ``q8_0``: llama.cpp's blocks of 32 numbers in 8 bits."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how it compares."""

    place: Path
    size: int
    """Bytes of all that was written."""
    proof: Proof
    notes: tuple[str, ...] = ()


def export(
    target: str,
    to: str,
    output: str | Path,
    dtype: str | None = None,
    base: str | None = None,
    data: str | None = None,
    shard_size: int | None = None,
    force: bool = False,
) -> Exported:
    """Write a target for another program, and compare what that program reads with the target in float32.

    Args:
        target: Run, adapter or whole model: folder, ``.lora`` file, built-in or Hub id.
        to: A name of `EXPORTERS`.
        output: New folder or file, as the format has it.
        dtype: Of the stored weights, a key or a value of `DTYPES`; None keeps the base's own.
        base: Folder or Hub id of the base, where the adapter does not know it.
        data: File of rows to compare on; None: the run's own rows where they are known, else shipped sentences.
        shard_size: Bytes that a file of weights may have, of ``safetensors``.
        force: Replace `output` if lorakit wrote it.

    Raises:
        LorakitError: The format cannot hold the target, the place is taken, or what was written says something else.
    """
    make, dtype, output = _exporter(to), _dtype(dtype), Path(output).expanduser()
    opened = open_target(target, base=base)
    check_range(dtype, opened.base.family)
    exporter = make(Order(target, opened, output, dtype, base, data, shard_size))
    _check_dtype(to, exporter, dtype)
    exporter.refuse()
    _check_place(opened, output, exporter.folder, force)
    with whole_folder(output, force) if exporter.folder else whole_file(output, force) as aside:
        exporter.write(aside)
        proof = exporter.verify(aside)
        size = sum(file.stat().st_size for file in (aside.iterdir() if exporter.folder else (aside,)))
    return Exported(output, size, proof, (*opened.notes, *proof.notes))


def _exporter(to: str) -> Callable[[Order], Exporter]:
    if to not in EXPORTERS:
        raise LorakitError(f"--to is {to!r}; must be one of {', '.join(EXPORTERS)}. {nearest(to, EXPORTERS)}".rstrip())
    module, _, name = EXPORTERS[to].partition(":")
    return cast("Callable[[Order], Exporter]", getattr(importlib.import_module(module), name))


def _dtype(given: str | None) -> str | None:
    """Return a dtype by torch's name."""
    if given is None or given in DTYPES.values():
        return given
    if given not in DTYPES:
        raise LorakitError(f"--dtype is {given!r}; must be one of {', '.join(DTYPES)}, or left out: as the base is.")
    return DTYPES[given]


def _check_dtype(to: str, exporter: Exporter, dtype: str | None) -> None:
    if dtype is not None and dtype not in exporter.dtypes:
        short = [name for name, known in DTYPES.items() if known in exporter.dtypes]
        listed = " or ".join(filter(None, (", ".join(short[:-1]), short[-1])))
        raise LorakitError(f"--to {to} does not store {dtype}; give --dtype {listed}.")


def _check_place(target: Target, output: Path, folder: bool, force: bool) -> None:
    sources = (target.folder, target.base.folder)
    if not folder:
        check_file(output, force)
    elif any(output.resolve() == source.resolve() for source in sources):
        raise LorakitError(f"{output} is what would be exported; give another folder for the result.")
    else:
        check_destination(output, force, sources)
