"""The folder people share: opened by any of its names, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorakit.adapters import card, changed, lora_file, whole
from lorakit.adapters.agreement import check_agreement
from lorakit.adapters.forms import TargetForm, form_of
from lorakit.adapters.lora_config import LoraFile, check_new_rows, read_lora_file
from lorakit.adapters.manifest import Manifest, read_local, read_manifest, write_local, write_manifest
from lorakit.checkpoints import finding, weights
from lorakit.checkpoints.finding import Checkpoint, tokenizer_fingerprint
from lorakit.checkpoints.hashes import HASHES, check_hashes
from lorakit.checkpoints.locating import Located, locate, locate_identity
from lorakit.errors import CheckpointError
from lorakit.types import Head, PromptStyle

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Target:
    """Something that writes text: a base model, alone or with what was trained on it."""

    base: Checkpoint
    """For a whole model (``base``, ``full``, ``merged``) that model itself."""
    folder: Path
    form: TargetForm
    manifest: Manifest | None = None
    adapter: LoraFile | None = None
    """The checked adapter_config.json of a ``lora``."""
    notes: list[str] = field(default_factory=list)
    """What the user should know; the command line prints it."""

    def load(
        self, dtype: str = "float32", attention: str = "sdpa", device: str = "cpu", merge: bool = False
    ) -> nn.Module:
        """Return the model in eval mode, every tensor accounted for.

        Args:
            dtype: Of the weights: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for the base's stored one.
            attention: Name of the attention function, as registered with transformers.
            device: Where to put it.
            merge: Fold a LoRA pair into the weights: faster to run. Folded in float32 and rounded once, like
                `merging.fold`.

        Raises:
            CheckpointError: A tensor is missing, not expected, of another shape, or not finite.
        """
        import torch

        if self.form == "changed":
            model: nn.Module = changed.load(self.base, self.folder, self.trained, self.head, dtype, attention)
        elif self.adapter is None:
            model = self._whole(dtype, attention)
        else:
            below, fresh = self.base.load_for(self.head, "float32" if merge else dtype, attention)
            model = wrapped = lora_file.wrap(below, self.adapter, self.folder, fresh)
            if merge:
                stored = self.base.stored_dtype if dtype == "auto" else dtype
                model = wrapped.merge_and_unload().to(getattr(torch, stored))
        return model.to(device).eval().requires_grad_(False)

    def _whole(self, dtype: str, attention: str) -> nn.Module:
        model, fresh = self.base.load_for(self.head, dtype, attention)
        if fresh:
            raise CheckpointError(
                f"{self.base.called} has no trained {self.head.task} head ({fresh[0]} is not stored): train it first."
            )
        return model

    @property
    def head(self) -> Head:
        """The output it was trained with; of a base model its own."""
        if self.manifest is not None and self.form != "base":
            return self.manifest.head
        if self.adapter is not None:
            return lora_file.head_of(self.adapter, self.folder, self.base.head)
        return self.base.head

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained tensors, where the manifest lists them."""
        return self.manifest.trained if self.manifest is not None else ()

    @property
    def style(self) -> PromptStyle:
        """How a prompt is framed: as in training; for a base model as its chat template says, or not at all."""
        if self.manifest is not None:
            return self.manifest.style
        return PromptStyle(format="text", chat_template=getattr(self.tokenizer, "chat_template", None))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer the weights were trained with.

        Raises:
            CheckpointError: It cannot be read, or cuts text otherwise than in training.
        """
        found = self.base.tokenizer
        if self.folder != self.base.folder and (self.folder / "tokenizer.json").exists():
            found = finding.load_tokenizer(self.folder, self.base.config)
        expected = self.manifest.tokenizer if self.manifest is not None else None
        if expected is not None and tokenizer_fingerprint(found) != expected:
            raise CheckpointError(f"the tokenizer of {self.base.called} is not the one {self.folder} was trained with.")
        return found

    def with_tokens(self, tokens: Sequence[str]) -> tuple[Target, list[str]]:
        """Return the target with more tokens, and what is to be told about it, like `Checkpoint.with_tokens`."""
        _ = self.tokenizer  # checked before it changes
        base, notes = self.base.with_tokens(tokens)
        if base is self.base:
            return self, notes
        manifest = self.manifest
        if manifest is not None:
            manifest = manifest.model_copy(update={"tokenizer": tokenizer_fingerprint(base.tokenizer)})
        return replace(self, base=base, manifest=manifest), notes

    @property
    def eos_ids(self) -> frozenset[int]:
        """Token ids that end an answer."""
        trained = self.manifest.eos_ids if self.manifest is not None else ()
        return frozenset(trained) or self.base.eos_ids

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer besides."""
        return self.manifest.stop_strings if self.manifest is not None else ()


def open_target(name: str, revision: str | None = None, base: str | None = None) -> Target:
    """Open an adapter, a run, a merged or base model: a folder, a built-in, or a Hub id of any of these.

    Args:
        name: As typed.
        revision: Branch, tag or commit on the Hub.
        base: Folder or Hub id of the base of an adapter; needed where the adapter does not say, or says ``local:``.

    Raises:
        CheckpointError: Nothing of that name, a damaged file, two that contradict each other, or a base that is not the
            one of the training.
    """
    located = locate(name, revision, base)
    folder = located.folder
    hashed = check_hashes(folder)
    manifest = read_manifest(folder)
    form = form_of(folder, manifest)
    adapter = read_lora_file(folder) if form == "lora" else None
    check_agreement(folder, form, manifest, adapter)
    unknown = _unknown(folder, form, manifest, hashed)
    if form in ("base", "full", "merged"):
        if base is not None and not located.difference:
            raise CheckpointError(f"{name} is a whole model and needs no base; leave out --base {base}.")
        whole = finding.open_folder(located)
        return Target(whole, folder, form, manifest, notes=[*whole.notes, *unknown])
    found = open_base(folder, manifest, adapter, base)
    notes = [*located.notes, *found.notes, *unknown, *(manifest.notes if manifest is not None else ())]
    target = Target(found, folder, form, manifest, adapter, notes=notes)
    check_base(target)
    if adapter is not None and manifest is not None:
        check_new_rows(adapter, folder, found.new_rows)
    return target


def _unknown(folder: Path, form: TargetForm, manifest: Manifest | None, hashed: bool) -> list[str]:
    """Return what cannot be known of a folder because one of its files is missing, as notes."""
    if manifest is not None and not hashed:
        return [f"{folder}: {HASHES} is missing, so nothing says whether the files are whole."]
    if manifest is None and form == "lora":
        return [f"{folder} has no manifest.json: how prompts were framed and which base is right are not known."]
    return []


def open_base(folder: Path, manifest: Manifest | None, adapter: LoraFile | None, given: str | None) -> Checkpoint:
    """Return the base of an adapter, with the tokens that training added; whether it is the right one is not asked.

    Raises:
        CheckpointError: It is not known, not where it was, or damaged.
    """
    hint = adapter.base_model_name_or_path if adapter is not None else None
    found = finding.open_folder(_locate_base(folder, manifest, hint, given))
    return found.with_tokens(manifest.added_tokens)[0] if manifest is not None and manifest.added_tokens else found


def _locate_base(folder: Path, manifest: Manifest | None, hint: str | None, given: str | None) -> Located:
    if given is not None:
        return locate(given)
    identity = manifest.base.identity if manifest is not None else hint
    if not identity:
        raise CheckpointError(f"{folder} does not say which model it was trained on: give --base FOLDER or a Hub id.")
    if identity.startswith("local:"):
        path = read_local(folder).get("base")
        if path is None or not Path(path).is_dir():
            missing = "not known on this computer" if path is None else "no longer where it was"
            raise CheckpointError(
                f"{folder} was trained on a folder named {identity.removeprefix('local:')!r}, which is {missing}: "
                f"give --base FOLDER."
            )
        return Located(Path(path), identity)
    return locate_identity(identity, manifest.base.revision if manifest is not None else None)


def check_base(target: Target) -> None:
    """Raise CheckpointError for a base with other weights than in training, or with this very adapter in them."""
    base, manifest = target.base, target.manifest
    beneath = read_manifest(base.folder)
    merged = beneath.parent if beneath is not None and beneath.form == "merged" else None
    if merged is not None and merged == adapter_fingerprint(target):
        raise CheckpointError(f"{target.folder} is already merged into {base.called}: use that model alone.")
    if manifest is not None and manifest.base.fingerprint != base.fingerprint:
        raise CheckpointError(
            f"{target.folder} was trained on another base: {manifest.base.identity} with weights "
            f"{manifest.base.fingerprint[:19]}…, and {base.called} has {base.fingerprint[:19]}…. "
            f"Give the right one with --base."
        )


def adapter_fingerprint(target: Target) -> str | None:
    """Return ``sha256:…`` of the trained tensors of an adapter; None for a whole model."""
    if target.form == "lora":
        return weights.fingerprint(lora_file.weight_file(target.folder))
    return weights.fingerprint(target.folder / changed.WEIGHTS) if target.form == "changed" else None


def write_weights(
    folder: Path,
    model: nn.Module,
    form: Literal["lora", "changed", "full"],
    base: Checkpoint,
    head: Head | None = None,
) -> None:
    """Write the trained weights of `model`, in float32, into `folder`.

    Args:
        folder: Exists; usually what `whole_folder` or `write_files` gave.
        model: As the method left it: PEFT's wrapper for ``lora``; for ``changed``, whatever has `requires_grad`.
        form: ``lora``: PEFT's pair of files. ``changed``: trained.safetensors. ``full``: a transformers folder.
        base: The checkpoint the model came from.
        head: Its output; None for the checkpoint's own.
    """
    if form == "lora":
        lora_file.write(folder, model, base.identity, base.revision)
    elif form == "changed":
        changed.write(folder, model)
    else:
        whole.write(folder, model, base, head or base.head)


def write_bundle(
    folder: Path,
    model: nn.Module,
    manifest: Manifest,
    base: Checkpoint,
    recipe: str,
    local: Mapping[str, str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Write all files of a finished training into `folder`: weights, manifest, recipe, model card, local.json.

    Args:
        folder: Exists; usually what `whole_folder` or `write_files` gave.
        model: As for `write_weights`.
        manifest: Its form says which files; ``merged`` is written by `merging.fold` alone.
        base: The checkpoint the model came from.
        recipe: Text of recipe.yaml, already free of paths.
        local: What holds paths of this computer (``recipe``), kept out of every other file.
        tokenizer: Only where it differs from the base's.
    """
    assert manifest.form != "merged"
    write_weights(folder, model, manifest.form, base, manifest.head)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    write_manifest(folder, manifest)
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    card.write(folder, manifest)
    write_local(folder, {"base": str(base.folder.resolve()), **(local or {})})
