"""An adapter written anew from changed parts: whole or not at all, read back, its loss measured before and after."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters import card, lora_file
from lorakit.adapters.bundle import Target, adapter_fingerprint, open_target
from lorakit.adapters.lora_config import LoraFile
from lorakit.adapters.lora_file import Width
from lorakit.adapters.manifest import Base, Manifest, library_versions, read_local, write_local, write_manifest
from lorakit.adapters.parts import Parts, config_of, method_of, take_apart
from lorakit.checkpoints import weights
from lorakit.checkpoints.finding import Checkpoint, tokenizer_fingerprint
from lorakit.checkpoints.folders import check_destination, whole_folder
from lorakit.errors import LorakitError
from lorakit.workflows import fitting
from lorakit.workflows.costing import Yardstick, yardstick
from lorakit.workflows.origins import origin_of

if TYPE_CHECKING:
    from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class Cost:
    """What a written adapter is, beside what it was made from."""

    folder: Path
    parameters: int
    """Numbers in the weight file."""
    size: int
    """Bytes of the weight file."""
    rows: int = 0
    """Rows the losses were measured on; 0 where no data were given."""
    before: Mapping[str, float] | None = None
    """Mean loss of each source by name, in nats."""
    after: float | None = None
    notes: tuple[str, ...] = ()


def open_lora(name: str, base: str | None, verb: str) -> tuple[Target, LoraFile, Parts]:
    """Open a LoRA adapter and take it apart.

    Raises:
        LorakitError: It is something else, which `verb` cannot be done to.
    """
    target = open_target(name, base=base)
    if target.adapter is None:
        raise LorakitError(
            f"{name} is no LoRA adapter (its form is {target.form}), and only low-rank pairs can be {verb}. To draw "
            f"pairs from what was trained: lorakit adapter extract --tuned {name} --rank 16 -o DIR"
        )
    return target, target.adapter, take_apart(target.folder, target.adapter)


def check_output(output: Path, targets: Iterable[Target], force: bool) -> None:
    """Raise LorakitError where a folder cannot be written, before any work."""
    folders = [folder for target in targets for folder in (target.folder, target.base.folder)]
    check_destination(output, force, folders)


def rewrite(
    sources: Mapping[str, Target],
    adapter: LoraFile,
    parts: Parts,
    done: str,
    output: Path,
    *,
    base: Checkpoint | None = None,
    data: str | None = None,
    before: Mapping[str, float] | None = None,
    force: bool = False,
    width: Width = "float32",
) -> Cost:
    """Write `parts` as an adapter, and read it back.

    Args:
        sources: What it was made from, by the names they were typed; prompts are framed as in the first.
        adapter: Its adapter_config.json; ranks and scales are those of `parts`.
        parts: Its tensors.
        done: For the manifest, what was done to the sources.
        output: New folder.
        base: What it is an adapter of; None: the base of the first source.
        data: Rows to measure the loss of the sources and of the result on.
        before: Losses of the sources, where they were measured already.
        force: Replace `output` where lorakit wrote it.
        width: How the numbers are stored.

    Raises:
        LorakitError: The folder is taken, the rows cannot be read, or what was written does not fit its base.
    """
    called, first = next(iter(sources.items()))
    check_output(output, sources.values(), force)
    measure = yardstick(first, called, data) if data is not None else None
    if measure is not None and before is None:
        before = {name: _loss(target, measure) for name, target in sources.items()}
    adapter = config_of(adapter, parts.pairs)
    base = base or first.base
    manifest = _manifest(list(sources.values()), base, adapter, parts, done)
    manifest = manifest.model_copy(update={"rounded": width if width in ("int8", "int4") else None})
    with whole_folder(output, force) as aside:
        lora_file.write_files(aside, parts.tensors, adapter.to_peft(), base.identity, base.revision, width)
        _write_companions(aside, first, base, manifest)
        written = open_target(str(aside), base=str(base.folder))
        after = _read_back(written, measure)
        if before is not None:
            losses: dict[str, JsonValue] = {"loss_before": before[called], "loss_after": after}
            manifest = manifest.model_copy(update={"metrics": losses})
            _describe(aside, manifest)
        size = lora_file.weight_file(aside).stat().st_size
    return Cost(
        folder=output,
        parameters=sum(tensor.numel() for tensor in parts.tensors.values()),
        size=size,
        rows=len(measure.rows) if measure is not None else 0,
        before=before,
        after=after,
        notes=(*(note for target in sources.values() for note in target.notes), *(measure.notes if measure else ())),
    )


def _loss(target: Target, measure: Yardstick) -> float:
    return measure.loss(target, target.load("float32", merge=True))


def _read_back(target: Target, measure: Yardstick | None) -> float | None:
    """Hold what was written against its base; return its loss where there are rows to measure on."""
    if measure is not None:
        return _loss(target, measure)
    # Names and shapes of the base alone, and one tensor at a time: both may be larger than the memory.
    file = lora_file.weight_file(target.folder)
    for _ in lora_file.checked(file):
        pass
    if faults := fitting.misfits(target):
        raise LorakitError(f"{file.name} does not fit its base: {faults[0]}. Nothing was written.")
    return None


def _manifest(sources: Sequence[Target], base: Checkpoint, adapter: LoraFile, parts: Parts, done: str) -> Manifest:
    first = sources[0]
    origin = origin_of(first, "lora")
    rows = {source.manifest.data if source.manifest is not None else None for source in sources}
    changes = {
        "form": "lora",
        "base": Base(
            identity=base.identity,
            revision=base.revision,
            fingerprint=base.fingerprint,
            model_type=base.family.model_type,
        ),
        "parent": adapter_fingerprint(first) or weights.fingerprint(first.folder),
        "method": method_of(adapter, origin.method if first.form == "lora" else {}),
        # Those of the training are not true of other weights.
        "metrics": {},
        "data": origin.data if len(rows) == 1 else None,
        "trained": parts.trained(adapter),
        "surgery": (*origin.surgery, done),
        "libraries": library_versions(),
    }
    return origin.model_copy(update=changes)


def _write_companions(folder: Path, first: Target, base: Checkpoint, manifest: Manifest) -> None:
    if tokenizer_fingerprint(first.tokenizer) != tokenizer_fingerprint(base.original.tokenizer):
        first.tokenizer.save_pretrained(folder)
    if (first.folder / "recipe.yaml").is_file():
        shutil.copyfile(first.folder / "recipe.yaml", folder / "recipe.yaml")
    known = {name: value for name, value in read_local(first.folder).items() if name == "recipe"}
    write_local(folder, {"base": str(base.folder.resolve()), **known})
    _describe(folder, manifest)


def _describe(folder: Path, manifest: Manifest) -> None:
    write_manifest(folder, manifest)
    card.write(folder, manifest)
