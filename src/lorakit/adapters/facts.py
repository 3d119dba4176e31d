"""What the files of an adapter, a run or a model say about it: headers and small files alone, never a weight."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lorakit.adapters import lora_file
from lorakit.adapters.agreement import disagreements
from lorakit.adapters.contents import weight_files
from lorakit.adapters.forms import TargetForm, form_of
from lorakit.adapters.lora_config import LoraFile, read_lora_file
from lorakit.adapters.manifest import Manifest, read_manifest
from lorakit.adapters.peft_versions import Needed, needed
from lorakit.checkpoints.hashes import hash_faults
from lorakit.checkpoints.streams import TensorInfo

CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Layer:
    """One weight of the base and what an adapter holds for it."""

    name: str
    """The base's own name of the weight."""
    kind: str
    """``lora``: a low-rank pair; ``rows``: single rows of it; ``whole``: all of it, under its own name."""
    rank: int | None
    scale: float | None
    """Factor of B A (alpha / rank, or alpha / sqrt(rank)); None beside the rank where there is no pair."""
    parameters: int
    """Numbers stored for it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a target without its base."""

    folder: Path
    form: TargetForm
    base: dict[str, str | None]
    """``identity``, ``revision``, ``fingerprint`` and ``model_type``; None where no file says."""
    layers: tuple[Layer, ...]
    bytes: int
    """Size of the weight files."""
    licence: str | None
    """As the card's front matter names it."""
    adapter: LoraFile | None
    manifest: Manifest | None
    faults: tuple[str, ...] = ()
    """Where small files differ from their hashes, or contradict each other: what is told may not be so."""

    @property
    def parameters(self) -> int:
        """Numbers stored in the weight files."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def peft(self) -> Needed | None:
        """The oldest PEFT that gives the same scores; None where the files are not PEFT's, or in fewer bits."""
        if self.manifest is not None and self.manifest.rounded is not None:
            return None
        ranks = {layer.name.removesuffix(".weight"): layer.rank for layer in self.layers if layer.rank is not None}
        return needed(self.adapter, ranks) if self.adapter is not None else None

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON holds it, but the folder, which is a path of this computer."""
        manifest = self.manifest.model_dump(mode="json") if self.manifest is not None else {}
        told = ("objective", "task", "head", "method", "style", "normalise", "eos_ids", "stop_strings", "tokenizer")
        made = ("added_tokens", "data", "libraries", "metrics", "speed", "parent", "surgery")
        return {
            "form": self.form,
            "base": self.base,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "licence": self.licence,
            "peft": asdict(self.peft) if self.peft is not None else None,
            **{name: manifest.get(name) for name in (*told, *made)},
            "faults": list(self.faults),
            "layers": [asdict(layer) for layer in self.layers],
        }


def facts(folder: Path) -> Facts:
    """Read what the files of `folder` say; nothing of its base is read, and of its weights the header alone.

    Raises:
        CheckpointError: It is no target, or one of its small files or headers is damaged.
    """
    manifest = read_manifest(folder)
    form = form_of(folder, manifest)
    adapter = read_lora_file(folder) if form == "lora" else None
    files = weight_files(folder, form)
    infos = {name: info for file in files for name, info in lora_file.infos(file).items()}
    return Facts(
        folder=folder,
        form=form,
        base=_base(manifest, adapter),
        layers=_pairs(infos, adapter) if adapter is not None else _whole(infos),
        bytes=sum(file.stat().st_size for file in files),
        licence=licence(folder),
        adapter=adapter,
        manifest=manifest,
        faults=(
            *(fault.removeprefix(f"{folder}{os.sep}") for fault in hash_faults(folder, {file.name for file in files})),
            *disagreements(folder, form, manifest, adapter),
        ),
    )


def licence(folder: Path) -> str | None:
    """Return the licence that the front matter of README.md names; None where it names none."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        _, front, _ = text.split("---\n", maxsplit=2) if text.startswith("---\n") else ("", "", "")
        found = yaml.safe_load(front)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    told = found.get("license") if isinstance(found, dict) else None
    return str(told) if told else None


def _base(manifest: Manifest | None, adapter: LoraFile | None) -> dict[str, str | None]:
    if manifest is not None:
        return manifest.base.model_dump()
    hint = adapter.base_model_name_or_path if adapter is not None else None
    return {"identity": hint, "revision": None, "fingerprint": None, "model_type": None}


def _whole(infos: dict[str, TensorInfo]) -> tuple[Layer, ...]:
    return tuple(Layer(name, "whole", None, None, info.elements) for name, info in infos.items())


def _pairs(infos: dict[str, TensorInfo], adapter: LoraFile) -> tuple[Layer, ...]:
    """Return what a LoRA file holds, gathered by the weight it belongs to."""
    parts: dict[str, dict[str, TensorInfo]] = {}
    for name, info in infos.items():
        parts.setdefault(lora_file.adapted_weight(name), {})[name] = info
    layers = []
    for weight, held in parts.items():
        down = next((info for name, info in held.items() if name.endswith(".lora_A.weight")), None)
        kind = "rows" if any(map(lora_file.is_rows, held)) else "whole" if down is None else "lora"
        rank = down.shape[0] if down is not None and down.shape else None
        scale = adapter.scale(weight.removesuffix(".weight"), rank) if rank else None
        layers.append(Layer(weight, kind, rank, scale, sum(info.elements for info in held.values())))
    return tuple(layers)
