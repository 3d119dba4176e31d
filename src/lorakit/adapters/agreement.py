"""Whether the files of one folder say the same of it, as far as no base is needed to tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lorakit.adapters import lora_file
from lorakit.adapters.forms import TargetForm
from lorakit.adapters.lora_config import CONFIG, LoraFile, method_faults
from lorakit.adapters.manifest import Manifest
from lorakit.checkpoints.inspection import read_json
from lorakit.errors import CheckpointError


def check_agreement(folder: Path, form: TargetForm, manifest: Manifest | None, adapter: LoraFile | None) -> None:
    """Raise CheckpointError where two files of a folder contradict each other; nothing tells which of them is right."""
    for fault in disagreements(folder, form, manifest, adapter):
        raise CheckpointError(f"{folder}: {fault}")


def disagreements(folder: Path, form: TargetForm, manifest: Manifest | None, adapter: LoraFile | None) -> Iterator[str]:
    """Yield a line for each kind of contradiction: names of labels, settings of the method, ranks of the pairs.

    Args:
        folder: Holds the files; of the weights the header alone is read.
        form: What they are.
        manifest: What manifest.json says.
        adapter: What adapter_config.json says.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    if manifest is not None:
        yield from label_faults(folder, form, manifest)
    if manifest is not None and adapter is not None:
        yield from method_faults(adapter, manifest.method)
    if adapter is not None:
        yield from _rank_faults(folder, adapter)


def label_faults(folder: Path, form: TargetForm, manifest: Manifest) -> Iterator[str]:
    """Yield a line for each place that names other labels than the head, or the same in another order."""
    labels = list(manifest.head.labels)
    others = {"the objective's settings in manifest.json": manifest.task.get("labels")}
    if labels and form in ("full", "merged"):
        named = read_json(folder / "config.json").get("id2label") or {}
        # What is no mapping names other labels, whatever it is.
        there = [named.get(str(number)) for number in range(len(named))] if isinstance(named, dict) else [named]
        others["config.json"] = there
    for where, other in others.items():
        if labels and other and other != labels:
            yield (
                f"the labels in manifest.json ({', '.join(labels[:8])}) are not those of {where}: one of them was "
                f"edited, and answers would get wrong names. Use another copy."
            )


def _rank_faults(folder: Path, adapter: LoraFile) -> Iterator[str]:
    file = lora_file.weight_file(folder)
    wrong = []
    for name, info in lora_file.infos(file).items():
        module = lora_file.adapted_weight(name).removesuffix(".weight")
        if name.endswith(".lora_A.weight") and info.shape[:1] != (adapter.rank(module),):
            wrong.append(f"{module} has rank {adapter.rank(module)} in {CONFIG}, and {info.shape} are its numbers")
    if wrong:
        more = f" ({len(wrong)} layers in all)" if len(wrong) > 1 else ""
        yield f"{wrong[0]} in {file.name}{more}: one of them was edited. Use another copy."
