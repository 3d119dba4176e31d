"""What must not leave this computer: secrets and paths, looked for in the files that are about to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lorakit.adapters.manifest import read_local

_SECRETS = {
    "a token of the Hugging Face Hub": rb"\bhf_[A-Za-z0-9]{30,}",
    "a token of GitHub": rb"\bgh[oprsu]_[A-Za-z0-9]{36}|\bgithub_pat_\w{40,}",
    "a key of a model service": rb"\bsk-[A-Za-z0-9_-]{32,}",
    "a key of AWS": rb"\bAKIA[0-9A-Z]{16}\b",
    "a token of Slack": rb"\bxox[abprs]-[0-9A-Za-z-]{20,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
_HOME = rb"""(?:/home|/Users)/[^/\s"'<>]+/|\b[A-Za-z]:\\+Users\\+[^\\\s"'<>]+"""
_NAMED_BASE = rb'"(?:base_model_name_or_path|_name_or_path)"\s*:\s*"(?:[/~]|[A-Za-z]:\\)'
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|KEY)$")
_SHORTEST = 12
"""A shorter value of an environment variable would be found everywhere."""
_TEXT_OF_WEIGHTS = 100_000_000
"""Bytes at the start of a weight file that are read: its header is shorter."""


def leaks(
    folder: Path,
    names: Iterable[str],
    environment: Mapping[str, str] = os.environ,
    anew: Mapping[str, bytes] | None = None,
) -> Iterator[str]:
    """Yield a line for each file that holds a secret or a path of this computer; what was found is not repeated.

    Of weight files the header is read, the only text in them.

    Args:
        folder: A target.
        names: Its files to look at.
        environment: Values of variables called ``…TOKEN``, ``…SECRET``, ``…PASSWORD``, ``…KEY`` are secrets.
        anew: Of files that are written anew before they leave, by name, what will be in them.
    """
    secrets = {value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    paths = _paths(folder)
    for name in names:
        text = anew[name] if anew is not None and name in anew else _text(folder / name)
        found = [what for what, pattern in _SECRETS.items() if re.search(pattern, text)]
        if _holds(text, secrets):
            found.append("the value of a secret environment variable")
        if found:
            yield f"{name} holds {found[0]}: take it out, and revoke it where it was ever shared."
        if re.search(_HOME, text) or re.search(_NAMED_BASE, text) or _holds(text, paths):
            yield f"{name} holds a path of a computer: take it out, or put the name of a model in its place."


def _paths(folder: Path) -> set[str]:
    """Return folders of this computer that nobody else has: the user's own, and what local.json knows."""
    local = read_local(folder)
    known = {str(folder.resolve().parent), str(Path.cwd()), local.get("base", "")}
    if "recipe" in local:
        known |= set(_strings(json.loads(local["recipe"]).get("values")))
    # A path of one part, such as /tmp, stands in many texts by chance.
    return {f"{Path.home()}/", *(path for path in known if Path(path).is_absolute() and len(Path(path).parts) > 2)}


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part)


def _text(file: Path) -> bytes:
    with file.open("rb") as stream:
        if file.suffix != ".safetensors":
            return stream.read()
        length = int.from_bytes(stream.read(8), "little")
        return stream.read(min(length, _TEXT_OF_WEIGHTS))


def _holds(text: bytes, words: Iterable[str]) -> bool:
    """Whether one of the words stands in the text, as it is or as JSON escapes it."""
    return any(form.encode() in text for word in words for form in (word, json.dumps(word)[1:-1]))
