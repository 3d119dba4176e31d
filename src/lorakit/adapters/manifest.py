"""manifest.json: what a folder of weights is, what it was made from, and how it is to be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from lorakit.checkpoints.inspection import read_json
from lorakit.errors import CheckpointError
from lorakit.types import Head, PromptStyle

FORMAT = 1
"""Version of manifest.json that this lorakit writes, and the newest it reads."""

MANIFEST = "manifest.json"
LOCAL = "local.json"

Form = Literal["lora", "changed", "full", "merged"]
"""A low-rank pair beside the base; the changed tensors alone; a whole trained model; a whole model after a merge."""


def _shareable(identity: str) -> str:
    if identity.startswith(("/", ".", "~")) or "\\" in identity:
        raise ValueError("looks like a path of one computer; a Hub id, builtin:NAME or local:FOLDERNAME is meant")
    return identity


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Base(_Part):
    """The model that the weights belong to."""

    identity: Annotated[str, AfterValidator(_shareable)]
    """Hub id, ``builtin:NAME`` or ``local:FOLDERNAME``."""
    revision: str | None = None
    """Commit on the Hub; None elsewhere."""
    fingerprint: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Of its weights, tensor by tensor (`checkpoints.weights.fingerprint`)."""
    model_type: str
    """As in its config.json."""


class Manifest(_Part):
    """What manifest.json holds; nothing in it depends on the computer."""

    format: Literal[1] = 1
    form: Form
    base: Base
    parent: str | None = None
    """``sha256:…`` of the adapter weights this was merged or continued from; None for a first training."""
    objective: str = "causal_lm"
    task: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the objective, its name included, as they were resolved for the training rows."""
    head: Head = Head("causal_lm")
    """The output that was trained, with the names of its labels in the order of its scores."""
    method: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the method, its name included."""
    style: PromptStyle = PromptStyle()
    """How a prompt was framed in training."""
    normalise: Literal["nfc"] | None = None
    """``nfc`` where letters were composed in training, so that they are composed wherever text is read again."""
    eos_ids: tuple[int, ...] = ()
    """Token ids that end an answer; empty: those of the base."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end an answer besides."""
    tokenizer: str | None = None
    """``sha256:…`` of the tokenizer the weights were trained with."""
    added_tokens: tuple[str, ...] = ()
    """Tokens that the vocabulary of the base lacks, in the order in which they were added."""
    data: str | None = None
    """``sha256:…`` of the training rows."""
    surgery: tuple[str, ...] = ()
    """What was done to the trained weights since, in order: ``resize to rank 4``."""
    rounded: Literal["int8", "int4"] | None = None
    """In how many bits an adapter is stored; None for floating-point numbers."""
    libraries: dict[str, str] = Field(default_factory=dict)
    """Name -> version."""
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    """Numbers of the evaluation; of a merged folder, how far it is from base and adapter."""
    speed: tuple[str, ...] = ()
    """Fast paths that were taken."""
    trained: tuple[str, ...] = ()
    """Names of the trained tensors, as in the model."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of an adapter whose base was in fewer bits while it learned."""
        width = self.method.get("quantize_base")
        if width is None:
            return ()
        losses = [self.metrics.get(name) for name in ("evaluation_loss", "evaluation_loss_base_as_is")]
        told = [f"{loss:.3f}" for loss in losses if isinstance(loss, float)]
        both = f": evaluation loss {told[0]} there, {told[1]} here" if len(told) == 2 else ""
        return (f"trained over the base in {width}; here the base is as it is, so that scores differ a little{both}",)


def read_manifest(folder: Path) -> Manifest | None:
    """Read manifest.json; None where there is none.

    Raises:
        CheckpointError: A newer lorakit wrote it, or it is damaged.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return None
    version = read_json(file).get("format")
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(
            f"{file} has format {version}, and this lorakit reads up to {FORMAT}: update it (pip install -U lorakit)."
        )
    try:
        return Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{file} is damaged: {where}: {first['msg']}. Use another copy.") from problem


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into `folder`."""
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_local(folder: Path) -> dict[str, str]:
    """Return what local.json knows, empty where there is none.

    ``base`` is a path, ``recipe`` JSON with paths, ``rows`` JSON with the fingerprints of the run's rows.
    """
    file = folder / LOCAL
    return {key: str(value) for key, value in read_json(file).items()} if file.is_file() else {}


def write_local(folder: Path, paths: dict[str, str]) -> None:
    """Write local.json, the only file with paths of this computer, and the only one that is never shared."""
    (folder / LOCAL).write_text(json.dumps(paths, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def library_versions() -> dict[str, str]:
    """Return name -> version of the libraries that a result depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("lorakit", "torch", "transformers", "peft", "tokenizers", "safetensors")}
