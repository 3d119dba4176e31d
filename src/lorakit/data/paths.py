"""Which files a source names: existing, readable, regular, of a kind that is read."""

from __future__ import annotations

import os
import stat
import unicodedata
from importlib import resources
from pathlib import Path

from lorakit.data.settings import DataSettings, SourceSettings
from lorakit.errors import DataError, nearest

STANDARD_INPUT = "-"
HUB = "hf://"
SHIPPED = "recipe:"
KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".conll", ".bio", ".iob", ".txt", ".md")
READ = ", ".join(KINDS) + ", each also with .gz behind it"


def kind_of(path: Path) -> str | None:
    """Return the suffix that says how a file is read, without .gz and in lower case; None where it is not read."""
    name = path.name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    return suffix if suffix in KINDS else None


def shown(name: str) -> str:
    r"""Return a file name as messages and rows carry it: what does not print stands as an escape, ``\n``."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)


def locate(name: str, base_dir: Path | None = None) -> Path:
    """Return the file or folder that `name` means.

    Args:
        name: A path, relative to `base_dir` (left out: the working directory), or ``recipe:FILE``, rows that ship with
            lorakit. A name typed with composed Korean letters finds a file whose name is decomposed (as macOS writes).
        base_dir: Where relative paths begin.

    Raises:
        DataError: Nothing is there; names the nearest file.
    """
    if name.startswith(SHIPPED):
        return _shipped(name.removeprefix(SHIPPED))
    path = (base_dir or Path()) / Path(name).expanduser()
    try:
        if path.exists():
            return path
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else None
    except OSError as error:
        raise DataError(f"{shown(name)} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise DataError(f"{shown(name)} is no file name.") from None
    if beside is None:
        hub = f" On the Hub it would be {HUB}{shown(name)}." if name.count("/") == 1 and not path.suffix else ""
        raise DataError(f"{shown(name)} does not exist, and neither does the folder {shown(str(path.parent))}.{hub}")
    composed = unicodedata.normalize("NFC", path.name)
    for other in beside:
        if unicodedata.normalize("NFC", other) == composed:
            return path.parent / other
    hint = shown(nearest(path.name, beside))
    if not hint and any(sign in name for sign in "*?["):
        hint = "Patterns are not expanded: give the folder, or a list of files."
    raise DataError(f"{shown(name)} does not exist. {hint}".rstrip())


def files_of(path: Path, notes: list[str]) -> list[tuple[str, Path]]:
    """Return the files that `path` stands for, each with the name that its rows carry.

    A folder stands for all files below it, sorted by name; those of another kind, and hidden ones, are a note.

    Raises:
        DataError: It is neither file nor folder, the file's kind is not read, or the folder holds nothing to read.
    """
    label = shown(path.name or str(path))
    if not path.is_dir():
        _check_regular(path, label)
        if kind_of(path) is None:
            raise DataError(f"{label}: what kind of file this is does not follow from its name. Read are {READ}.")
        return [(label, path)]
    inside = _below(path, label)
    visible = [entry for entry in inside if not any(part.startswith(".") for part in entry.relative_to(path).parts)]
    readable = [entry for entry in visible if kind_of(entry) is not None and not entry.is_dir()]
    if not readable:
        raise DataError(f"the folder {label} holds no file that can be read. Read are {READ}.")
    others = [entry for entry in inside if entry not in set(readable)]
    if others:
        listed = ", ".join(shown(entry.relative_to(path).as_posix()) for entry in others[:5])
        more = f" and {len(others) - 5:,} more" if len(others) > 5 else ""
        notes.append(f"{label}: not read, being hidden or of another kind: {listed}{more}.")
    found = [(shown(entry.relative_to(path).as_posix()), entry) for entry in readable]
    for name, entry in found:
        _check_regular(entry, name)
    return found


def refuse_training_file(settings: DataSettings, base_dir: Path | None = None) -> None:
    """Refuse to evaluate on what is trained on: the same source, or a file inside the folder of training rows.

    Raises:
        DataError: data.eval names such a source.
    """
    if settings.eval is None or isinstance(settings.eval, float):
        return
    evaluation = as_source(settings.eval)
    train = settings.train if isinstance(settings.train, list) else [settings.train]
    for source in map(as_source, train):
        if _is_local(source) and _is_local(evaluation):
            ours, theirs = (locate(one.path, base_dir).resolve() for one in (evaluation, source))
            same, inside = ours == theirs, ours.is_relative_to(theirs)
        else:
            identities = [(one.path, one.config, one.split) for one in (evaluation, source)]
            same = inside = identities[0] == identities[1]
        if inside:
            what = "is data.train as well" if same else f"lies inside data.train ({shown(source.path)})"
            raise DataError(
                f"data.eval ({shown(evaluation.path)}) {what}: a loss measured on training rows says nothing about new "
                "ones. Give another file, or a share such as 0.1."
            )


def as_source(source: str | SourceSettings) -> SourceSettings:
    """Return a source written as a plain word in its full form.

    Raises:
        DataError: The word is empty or is no Unicode text.
    """
    if not isinstance(source, str):
        return source
    try:
        return SourceSettings(path=source)
    except ValueError:
        raise DataError(f"'{shown(source)}' cannot name a source. Rename the file, or give its folder.") from None


def _is_local(source: SourceSettings) -> bool:
    return source.path != STANDARD_INPUT and not source.path.startswith(HUB)


def _shipped(name: str) -> Path:
    folder = Path(str(resources.files("lorakit") / "recipes"))
    available = sorted(entry.name for entry in folder.iterdir() if kind_of(entry)) if folder.is_dir() else []
    if name in available:
        return folder / name
    raise DataError(
        f"{SHIPPED}{shown(name)}: no rows of this name ship with lorakit. "
        f"{nearest(name, available)} Shipped are: {', '.join(available) or 'none'}.".replace("  ", " ")
    )


def _below(folder: Path, label: str) -> list[Path]:
    """Return all files below a folder by name; a linked folder stands among them, and is not entered."""

    def refuse(error: OSError) -> None:
        raise DataError(f"the folder {label} cannot be read wholly: {error.strerror} ({shown(str(error.filename))}).")

    found = []
    for here, folders, files in os.walk(folder, onerror=refuse):
        links = [name for name in folders if Path(here, name).is_symlink()]
        found += [Path(here, name) for name in (*files, *links)]
    return sorted(found, key=lambda entry: entry.as_posix())


def _check_regular(path: Path, label: str) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"{label} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(mode):
        raise DataError(
            f"{label} is a pipe or a device, and a file is read more than once. "
            f"Give the rows on standard input: ... | lorakit train --data {STANDARD_INPUT}"
        )
    if not os.access(path, os.R_OK):
        raise DataError(f"{label} cannot be read: permission denied.")
