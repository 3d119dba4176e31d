"""`lorakit adapter quantize`: the same adapter with its numbers stored in fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorakit.adapters.lora_file import Width, weight_file
from lorakit.workflows.rewriting import Cost, check_output, open_lora, rewrite


@dataclass(frozen=True, slots=True)
class Stored:
    """An adapter of another width."""

    cost: Cost
    size_before: int
    """Bytes of the weight file it was made from."""


def quantize(
    target: str,
    output: str | Path,
    to: Width,
    *,
    base: str | None = None,
    data: str | None = None,
    force: bool = False,
) -> Stored:
    """Write an adapter with its matrices rounded; nothing but the storage changes.

    Args:
        target: LoRA adapter or run of any width: folder or Hub id.
        output: New folder.
        to: ``float32`` and ``bf16``: a pair that PEFT reads. ``int8`` and ``int4``: restored wherever lorakit reads it
            (`rounded_file`).
        base: Folder or Hub id of the base, where the adapter does not know it.
        data: Rows to measure the loss on, before and after.
        force: Replace `output` where lorakit wrote it.

    Raises:
        LorakitError: The target is no LoRA adapter, or the folder is taken.
    """
    output = Path(output).expanduser()
    opened, adapter, parts = open_lora(target, base, "stored in fewer bits")
    check_output(output, [opened], force)
    cost = rewrite({target: opened}, adapter, parts, f"quantize to {to}", output, data=data, force=force, width=to)
    return Stored(cost, weight_file(opened.folder).stat().st_size)
