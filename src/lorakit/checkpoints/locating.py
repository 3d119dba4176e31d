"""From a name to a folder: an existing path first, then a built-in, then the Hub and its cache."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lorakit.checkpoints import packed
from lorakit.checkpoints.differences import INDEX, Origin
from lorakit.errors import CheckpointError, nearest

_HUB_FILES = [
    "*.json",
    "*.jsonl",
    "*.jinja",
    "*.txt",
    "*.model",
    "*.safetensors",
    "*.yaml",
    "*.html",
    "README.md",
    "LICENSE",
    "NOTICE",
]
_HUB_BIN = "pytorch_model*.bin*"
_HUB_IGNORED = ["*/*", "consolidated*", "optimizer*", "training_args*"]


@dataclass(frozen=True, slots=True)
class Located:
    """A folder on this computer, and what to call it anywhere else."""

    folder: Path
    identity: str
    """Hub id, ``builtin:NAME``, or ``local:FOLDERNAME``: never a path."""
    revision: str | None = None
    """Commit of a Hub snapshot; None elsewhere."""
    notes: tuple[str, ...] = ()
    difference: bool = False
    """Whether it was put together from a base and the difference to it, so that a base may have been given."""


def locate(name: str, revision: str | None = None, base: str | None = None) -> Located:
    """Return the folder that `name` stands for.

    Args:
        name: Path of a folder or of a `.lora` file, name of a built-in (``tiny-gpt`` or ``builtin:tiny-gpt``), or a
            Hub id.
        revision: Branch, tag or commit on the Hub.
        base: Name of the base that a `.lora` file holds the difference to; None where the file says it.

    Raises:
        CheckpointError: Nothing of that name; the message says where was looked and what to type.
    """
    shipped = builtins()
    if not name.strip():
        raise CheckpointError(f"the name of a model is empty; give a folder, a Hub id or one of {', '.join(shipped)}.")
    plain = name.removeprefix("builtin:")
    path = Path(name).expanduser()
    if path.exists() and plain == name:
        return _local(path, ambiguous=name in shipped, revision=revision, base=base)
    if plain in shipped:
        if revision is not None:
            raise CheckpointError(f"{name} is built in and has no revisions; leave out revision {revision!r}.")
        return Located(shipped[plain], f"builtin:{plain}")
    if plain != name or _looks_like_a_path(name):
        raise _missing(name, "")
    return _from_hub(name, revision)


def locate_identity(identity: str, revision: str | None = None) -> Located:
    """Return the folder of an identity that a file names: a built-in or a Hub id, never a path of this computer.

    A shared file may say anything; following a path it names would read what its author chose on the reader's disk.

    Raises:
        CheckpointError: It names a path, or nothing of that name is there.
    """
    if identity.startswith("builtin:"):
        return locate(identity)
    if _looks_like_a_path(identity):
        raise CheckpointError(f"the base is named by a path, {identity!r}, which is not followed: give --base FOLDER.")
    return _from_hub(identity, revision)


@contextmanager
def offline() -> Iterator[None]:
    """Keep the Hub from being asked: what its cache on this computer holds is all there is."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of an owner's repository on the Hub: ``owner/name``."""
    return name.count("/") == 1 and not _looks_like_a_path(name)


def base_of(given: str | None, file: Path, origin: Origin) -> Path:
    """Return the folder of the base that a `.lora` file holds the difference to.

    Args:
        given: Its name, as typed; None: what the file says.
        file: For messages.
        origin: What the file says.

    Raises:
        CheckpointError: It is not there, or lay in a folder of the computer where it was packed.
    """
    if given is not None:
        return locate(given).folder
    if origin.identity.startswith("local:"):
        raise CheckpointError(
            f"{file} holds the difference to a folder named {origin.identity.removeprefix('local:')!r}: give --base "
            f"FOLDER, or make a whole model of it once: lorakit adapter unpack {file} --base FOLDER -o DIR"
        )
    return locate_identity(origin.identity, origin.revision).folder


def builtins() -> dict[str, Path]:
    """Return name -> folder of the checkpoints shipped with lorakit."""
    root = Path(str(importlib.resources.files("lorakit") / "builtin"))
    return {file.parent.name: file.parent for file in sorted(root.glob("*/config.json"))}


def cached_ids() -> list[str]:
    """Return the ids of the models in the Hub's cache on this computer."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots"))
    return [folder.parent.name.removeprefix("models--").replace("--", "/") for folder in folders]


def _local(path: Path, ambiguous: bool, revision: str | None, base: str | None) -> Located:
    if revision is not None:
        raise CheckpointError(f"{path} lies on this computer and has no revisions; leave out revision {revision!r}.")
    if path.suffix == packed.SUFFIX and path.is_file():
        difference = INDEX in packed.read_listing(path)
        folder = packed.unpacked(path, partial(base_of, base, path))
        return Located(folder, f"local:{path.stem}", difference=difference)
    if path.is_file():
        raise CheckpointError(f"{path} is a file; give the folder that holds it: {path.parent}/")
    notes: tuple[str, ...] = ()
    if ambiguous:
        notes = (f"{path} is taken to be the folder of that name here; for the built-in type builtin:{path}.",)
    return Located(path, f"local:{path.resolve().name}", notes=notes)


def _looks_like_a_path(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if name.startswith((".", "/", "~")) or name.count("/") > 1 or (os.sep != "/" and os.sep in name):
        return True
    try:
        validate_repo_id(name)
    except HFValidationError:
        return True
    return False


def _from_hub(name: str, revision: str | None) -> Located:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    def download(patterns: list[str]) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=_HUB_IGNORED))

    try:
        folder = download(_HUB_FILES)
        if not any(folder.glob("*.safetensors")):
            folder = download([*_HUB_FILES, _HUB_BIN])
    except GatedRepoError as problem:
        raise CheckpointError(
            f"{name} on the Hub asks for consent: accept its terms on its page, then set HF_TOKEN to a token that "
            f"may read it."
        ) from problem
    except RepositoryNotFoundError as problem:
        raise _missing(name, "the Hub has no such model, or HF_TOKEN may not read it") from problem
    except RevisionNotFoundError as problem:
        raise CheckpointError(f"{name} on the Hub has no revision {revision!r}.") from problem
    except (HfHubHTTPError, OSError, ValueError) as problem:
        raise _missing(name, _reach()) from problem
    return Located(folder, name, revision=folder.name)


def _reach() -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return "not in the Hub's cache on this computer, and HF_HUB_OFFLINE forbids asking the Hub"
    return "not in the Hub's cache on this computer, and the Hub could not be reached"


def _missing(name: str, hub: str) -> CheckpointError:
    shipped, cached = list(builtins()), cached_ids()
    looked = [
        f"  folder    {Path(name).expanduser().absolute()}: does not exist",
        f"  built-in  {', '.join(shipped) or 'none shipped'}",
        f"  Hub       {hub or 'not asked: this is no Hub id (name or owner/name)'}",
    ]
    if cached:
        looked.append(f"  cached    {', '.join(cached[:8])}{', …' if len(cached) > 8 else ''}")
    hint = nearest(name.removeprefix("builtin:"), [*shipped, *cached])
    return CheckpointError("\n".join([f"there is no model {name!r}. {hint}".rstrip(), *looked]))
