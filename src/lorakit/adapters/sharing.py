"""A repository on the Hub: what is in it already, and one commit that puts files there or changes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters import changed
from lorakit.adapters.lora_config import CONFIG
from lorakit.checkpoints.hashes import HASHES, UNHASHED, parsed
from lorakit.checkpoints.locating import is_hub_id
from lorakit.errors import CheckpointError, LorakitError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

_KEPT = frozenset({".gitattributes", "README.md", "LICENSE", "NOTICE"})
"""Files that a repository may begin with; one of these names is written over."""
_OF_MODELS = (".safetensors", ".bin", ".gguf", ".onnx", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file that goes to the Hub."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


@dataclass(frozen=True, slots=True)
class Sent:
    """What the Hub was given."""

    url: str
    removed: tuple[str, ...]
    """Files of the repository that the commit took out."""
    notes: tuple[str, ...]
    """What the Hub said about the card."""


def check_name(name: str) -> None:
    """Raise LorakitError for what cannot be the name of a repository."""
    if not is_hub_id(name):
        raise LorakitError(
            f"{name!r} is no name of a repository: OWNER/NAME is meant, each of letters, digits, '-', '_' and '.'."
        )


def send(name: str, files: Sequence[Outgoing], message: str, private: bool = False, force: bool = False) -> Sent:
    """Put files into a repository with one commit; it is made where there is none.

    A repository that was pushed to before is brought to what the files are: what lorakit put there and is no longer
    among them goes, whatever else lies there stays. Earlier commits keep what they held.

    Args:
        name: ``owner/name``.
        files: What it shall hold.
        message: Of the commit.
        private: Make a new repository private.
        force: Also put them where another model is, whose files then go.

    Raises:
        LorakitError: Nobody is logged in, the Hub refuses or cannot be reached, the repository holds something else,
            or is public where a private one was asked for. Nothing was committed then.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if get_token() is None:
        raise LorakitError("not logged in to the Hub: run `hf auth login`, or set HF_TOKEN to a token that may write.")
    api = HfApi()
    with _explained(name), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        there = _there(api, name)
        removed = _removed(api, there, {file.name for file in files}, name, private, force) if there else []
        if there is None:
            api.create_repo(name, private=private or None)
        api.create_commit(
            name,
            [
                *(CommitOperationAdd(file.name, file.content) for file in files),
                *(CommitOperationDelete(obsolete) for obsolete in removed),
            ],
            commit_message=message,
            parent_commit=there.sha if there else None,
        )
    notes = [" ".join(str(warning.message).split()) for warning in told if "README" in str(warning.message)]
    return Sent(f"{api.endpoint}/{name}", tuple(removed), tuple(notes))


def _there(api: HfApi, name: str) -> ModelInfo | None:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(name)
    except RepositoryNotFoundError:
        return None


def _removed(api: HfApi, there: ModelInfo, ours: set[str], name: str, private: bool, force: bool) -> list[str]:
    """Return the files of a repository that make room; raises LorakitError where it is not for us to write there."""
    if private and there.private is False:
        raise LorakitError(
            f"{name} exists and is public: make it private on its page first, or leave out --private. Nothing was sent."
        )
    present = {file.rfilename for file in there.siblings or []}
    before = _pushed(api, name, there.sha, present)
    strange = {file for file in present - before - _KEPT if file in ours or _of_model(file)}
    if before and _kind(before) != _kind(ours):
        strange |= before - _KEPT
    if strange and not force:
        raise LorakitError(
            f"{name} holds another model ({', '.join(sorted(strange)[:4])}), and this is {_kind(ours)}: choose another "
            f"name, or pass --force to put this in its place (earlier commits keep it)."
        )
    return sorted((present & before | strange) - ours - _KEPT)


def _pushed(api: HfApi, name: str, commit: str | None, present: set[str]) -> set[str]:
    """Return which files lorakit put there, as its hashes.json lists them."""
    if HASHES not in present:
        return set()
    file = Path(api.hf_hub_download(name, HASHES, revision=commit))
    try:
        return {*parsed(file.read_bytes(), file), *UNHASHED} & present
    except CheckpointError:
        return set()


def _of_model(file: str) -> bool:
    return file.endswith(_OF_MODELS) or file in (CONFIG, "config.json")


def _kind(files: Iterable[str]) -> str:
    held = set(files)
    return "a LoRA adapter" if CONFIG in held else "trained weights" if changed.WEIGHTS in held else "a whole model"


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the Hub's library raises into one line that says what to do; what it says of tokens is left out."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    try:
        yield
    except HfHubHTTPError as problem:
        raise LorakitError(_refusal(name, problem.response.status_code, problem.server_message)) from problem
    except OfflineModeIsEnabled as problem:
        raise LorakitError("HF_HUB_OFFLINE forbids asking the Hub: unset it to push.") from problem
    except (HTTPError, OSError) as problem:
        raise LorakitError(
            f"the Hub could not be reached ({type(problem).__name__}): nothing was published. Look at the network, "
            f"then push again."
        ) from problem
    except ValueError as problem:
        raise LorakitError(f"the Hub does not take the card: {' '.join(str(problem).split())}") from problem


def _refusal(name: str, status: int, said: str | None) -> str:
    owner = name.partition("/")[0]
    told = {
        401: "the Hub does not know the token: log in with `hf auth login`, or set HF_TOKEN to another one.",
        403: f"the token may not write to {name}: use one with the role `write`, of {owner} or a member of {owner}.",
        404: f"the Hub has no {name} to write to, or the token may not see it: look at the name and the token.",
        409: f"{name} cannot be made: the name is taken, perhaps by something that is no model. Choose another name.",
        412: f"somebody else changed {name} at the same time: look at it, then push again.",
        429: "the Hub asks for fewer requests: push again in a while.",
    }
    more = f": {' '.join(said.split())}" if said else ""
    return told.get(status, f"the Hub refused with status {status}{more}. Nothing was published; push again later.")
