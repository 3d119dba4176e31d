"""Encoded rows that an earlier start, or another process of this machine, has kept: taken up where nothing changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import lorakit
from lorakit.adapters.bundle import Target
from lorakit.checkpoints import caches
from lorakit.checkpoints.finding import tokenizer_fingerprint
from lorakit.checkpoints.folders import whole_folder
from lorakit.checkpoints.hashes import check_hashes
from lorakit.data import token_files
from lorakit.data.paths import HUB, STANDARD_INPUT, as_source, files_of, locate
from lorakit.data.settings import DataSettings
from lorakit.errors import CheckpointError, DataError
from lorakit.recipe import Recipe
from lorakit.types import Format, Objective
from lorakit.workflows.encoding import Encoded, Understood, encode

_SMALL = 2**20
"""Bytes of rows below which encoding them again takes no longer than a glance."""
_UNDERSTOOD = "understood.json"


def encoded(
    recipe: Recipe, target: Target, make: Callable[[Any, Format], Objective], keep: bool = True
) -> tuple[Encoded, str, str]:
    """Return what `encode` returns, from files where an earlier start has kept them.

    Taken up is only what was made of the same bytes by the same code with the same settings, and is still whole.

    Args:
        recipe: As it runs.
        target: What is trained on.
        make: Returns the objective for its resolved settings and rows of a format.
        keep: Whether rows that are encoded now are kept for later.

    Returns:
        The rows; a line about where they are kept, or ""; a line about why they could not be, or "".

    Raises:
        DataError: As `encode`.
    """
    key = _key(recipe, target)
    if key is None:
        return encode(recipe, target, make), "", ""
    place = caches.folder("tokens") / key
    found = _recalled(place)
    if found is not None:
        return found, f"encoded rows are taken from {place}, where an earlier start has kept them", ""
    if not keep:
        return encode(recipe, target, make), "", ""
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_folder(place, own=True) as aside:
            made = encode(recipe, target, make, lambda side, examples: token_files.write(aside / side, examples))
            (aside / _UNDERSTOOD).write_bytes(TypeAdapter(Understood).dump_json(made.understood))
            if _key(recipe, target) != key:
                raise CheckpointError("their files changed meanwhile.")
        caches.make_room(place.parent, recipe.speed.tokens_gb * 1e9)
    except (CheckpointError, OSError) as error:
        return _recalled(place) or encode(recipe, target, make), "", _not_kept(place.parent, error)
    return made, f"encoded rows are kept for later starts in {place}", ""


def _not_kept(folder: Path, error: Exception) -> str:
    """Return why encoded rows are not kept, and what to do."""
    if not isinstance(error, OSError):
        return f"encoded rows are not kept: {error}"
    return (
        f"encoded rows are not kept: {folder} cannot be written ({error.strerror}). Set LORAKIT_CACHE to a folder that "
        "can be, or speed.tokens to false"
    )


def _recalled(place: Path) -> Encoded | None:
    """Return what lies in `place`; None where nothing does, or where it is damaged."""
    try:
        if not check_hashes(place):
            return None
        understood = TypeAdapter(Understood).validate_json((place / _UNDERSTOOD).read_bytes())
        os.utime(place)
        training, evaluation = (token_files.TokenFiles(place / side) for side in ("training", "evaluation"))
    except (CheckpointError, OSError):
        # Damaged, or just removed by another process.
        return None
    return Encoded(understood, training, evaluation, recalled=True)


def _key(recipe: Recipe, target: Target) -> str | None:
    """Return a name for all that encoded rows depend on; None where they are not kept."""
    if not recipe.speed.tokens or recipe.data.stream:
        return None
    try:
        files = list(_files(recipe.data))
    except DataError:
        # Said where rows are read.
        return None
    if sum(path.stat().st_size for _, path in files if path is not None) < _SMALL:
        return None
    known = {
        "code": _code(),
        "libraries": {name: metadata.version(name) for name in ("numpy", "tokenizers", "transformers")},
        "files": [(name, path and _digest(path)) for name, path in files],
        "data": recipe.data.model_dump(mode="json"),
        "objective": recipe.objective and recipe.objective.model_dump(mode="json"),
        "seed": recipe.train.seed,
        "tokenizer": tokenizer_fingerprint(target.tokenizer),
        "template": target.tokenizer.chat_template,
        "config": target.base.config,
        "form": target.form,
        "manifest": target.manifest and target.manifest.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _files(data: DataSettings) -> Iterator[tuple[str, Path | None]]:
    """Yield the files that rows and names of labels are read from, and what is said about others beside them.

    Raises:
        DataError: One is missing, or rows come from where they cannot be looked at beforehand.
    """
    train = data.train if isinstance(data.train, list) else [data.train]
    for source in map(as_source, [*train, *([] if isinstance(data.eval, float | None) else [data.eval])]):
        if source.path == STANDARD_INPUT or source.path.startswith(HUB):
            raise DataError(f"{source.path} is no file.")
        notes: list[str] = []
        yield from files_of(locate(source.path), notes)
        yield from ((note, None) for note in notes)
    if isinstance(data.label_names, str):
        yield data.label_names, locate(data.label_names)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _code() -> str:
    """Return a hash of lorakit's own source: another version, or a line changed in it, encodes anew."""
    digest = hashlib.sha256()
    for file in sorted(Path(lorakit.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
