"""`lorakit adapter check`: everything that can be wrong with a target, each fault in one line with its cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lorakit.adapters import bundle, contents, lora_file
from lorakit.adapters.agreement import label_faults
from lorakit.adapters.bundle import Target
from lorakit.adapters.forms import TargetForm, form_of
from lorakit.adapters.lora_config import LoraFile, check_new_rows, method_faults, read_lora_file
from lorakit.adapters.manifest import Manifest, read_manifest
from lorakit.adapters.privacy import leaks
from lorakit.checkpoints import finding, heads, packed
from lorakit.checkpoints.finding import Checkpoint
from lorakit.checkpoints.hashes import HASHES, hash_faults
from lorakit.checkpoints.locating import Located, locate
from lorakit.errors import LorakitError
from lorakit.workflows import fitting

_UNSHARED = frozenset({"local.json", "run.lock"})
_MOST = 8
"""Lines of one check."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What one check found."""

    name: str
    told: str
    """What holds, in words; empty where there are faults or nothing could be looked at."""
    faults: tuple[str, ...] = ()
    held: bool = True
    """Whether there was something to hold it to."""


class _Moot(Exception):
    """There is nothing to hold something to; the words say why."""


@dataclass(frozen=True)
class Checked:
    """What all checks found."""

    folder: Path
    looked: tuple[Looked, ...]

    @property
    def faults(self) -> int:
        """How many faults there are."""
        return sum(len(one.faults) for one in self.looked)


@dataclass(frozen=True)
class Subject:
    """A target that may be damaged: each part is read when it is first asked for, and raises what is wrong with it."""

    located: Located
    given_base: str | None

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.located.folder

    @cached_property
    def manifest(self) -> Manifest | None:
        """What manifest.json says."""
        return read_manifest(self.folder)

    @cached_property
    def form(self) -> TargetForm:
        """What the files are."""
        return form_of(self.folder, self.manifest)

    @cached_property
    def adapter(self) -> LoraFile | None:
        """adapter_config.json."""
        return read_lora_file(self.folder) if self.form == "lora" else None

    @cached_property
    def base(self) -> Checkpoint:
        """The base of an adapter, perhaps a wrong one; a whole model itself."""
        if self.form in ("lora", "changed"):
            return bundle.open_base(self.folder, self.manifest, self.adapter, self.given_base)
        return finding.open_folder(self.located)

    @cached_property
    def target(self) -> Target:
        """All of it, unchecked."""
        return Target(self.base, self.folder, self.form, self.manifest, self.adapter)


def check(target: str, base: str | None = None, revision: str | None = None) -> Checked:
    """Look at a target from every side: files, settings, tensors, base, plain libraries, text, and what it gives away.

    Every fault is told, not the first alone; what cannot be looked at because of one is left out.

    Args:
        target: Adapter, run or whole model: a folder, a `.lora` file, a built-in, or a Hub id.
        base: Folder or Hub id of the base of an adapter, where it does not know it.
        revision: Branch, tag or commit on the Hub.

    Raises:
        LorakitError: Nothing of that name.
    """
    file = Path(target).expanduser()
    if file.suffix == packed.SUFFIX and file.is_file():
        # The copy in the cache is whole whatever has become of the file since.
        damaged = _look("file", lambda _: (f"{packed.check_packed(file)} files are what was packed", []), None, set())
        if damaged.faults:
            return Checked(file, (damaged,))
    subject = Subject(locate(target, revision, base), base)
    seen: set[str] = set()
    looked: list[Looked] = []
    for name, look in _CHECKS.items():
        # Other libraries would fail on a fault that has been told, each in its own words.
        skipped = look is _plain and bool(seen)
        looked.append(Looked(name, "") if skipped else _look(name, look, subject, seen))
    return Checked(subject.folder, tuple(looked))


def _look(name: str, look: Callable[[Any], tuple[str, list[str]]], subject: Subject | None, seen: set[str]) -> Looked:
    """Run one check; what keeps it from looking is a fault where it has not been told yet."""
    try:
        told, faults = look(subject)
    except _Moot as reason:
        return Looked(name, str(reason), held=False)
    except LorakitError as problem:
        told, faults = "", [" ".join(line.strip() for line in str(problem).splitlines())]
    new = [fault for fault in faults if fault not in seen]
    seen.update(new)
    more = [f"… and {len(new) - _MOST} more like these"] if len(new) > _MOST else []
    return Looked(name, "" if faults else told, (*new[:_MOST], *more))


def _files(subject: Subject) -> tuple[str, list[str]]:
    faults = list(hash_faults(subject.folder))
    if (subject.folder / HASHES).exists():
        return "every file is as it was written", faults
    if subject.manifest is None:
        raise _Moot(f"no {HASHES} says what they should be: made elsewhere")
    return "", [f"{HASHES} is missing, so nothing says whether the files are whole. Use another copy."]


def _settings(subject: Subject) -> tuple[str, list[str]]:
    adapter, manifest = subject.adapter, subject.manifest
    if adapter is None:
        return f"a {subject.form} folder", []
    if manifest is not None:
        faults = list(method_faults(adapter, manifest.method))
        if faults:
            return "", faults
        check_new_rows(adapter, subject.folder, subject.base.new_rows if manifest.added_tokens else ())
    since = manifest.surgery[-1] if manifest is not None and manifest.surgery else None
    agree = f", as left by {since}" if since else ", as in training" if manifest is not None else ""
    return f"LoRA of rank {adapter.r}, alpha {adapter.lora_alpha:g}{agree}", []


def _labels(subject: Subject) -> tuple[str, list[str]]:
    manifest = subject.manifest
    if manifest is None or not manifest.head.labels:
        return "none", []
    return f"{len(manifest.head.labels)}, in one order everywhere", list(
        label_faults(subject.folder, subject.form, manifest)
    )


def _tensors(subject: Subject) -> tuple[str, list[str]]:
    count, faults = contents.look_through(subject.folder, subject.form)
    faults += [
        f"{fault}. It was edited, or belongs to another base: use another copy, or give --base."
        for fault in ([] if faults else fitting.misfits(subject.target))
    ]
    fitting_ones = ", of the names and shapes that the base asks for" if subject.form in ("lora", "changed") else ""
    return f"{count} tensors, all finite{fitting_ones}", faults


def _base(subject: Subject) -> tuple[str, list[str]]:
    if subject.form not in ("lora", "changed"):
        return "none needed: a whole model", []
    bundle.check_base(subject.target)
    if subject.manifest is None:
        raise _Moot(f"{subject.base.called}; whether it is the right one is not known: no manifest.json")
    return f"{subject.base.called} holds the very weights of the training", []


def _plain(subject: Subject) -> tuple[str, list[str]]:
    if subject.form == "changed":
        raise _Moot("for lorakit alone; lorakit merge makes a model for transformers")
    if lora_file.is_rounded(subject.folder):
        raise _Moot("stored in few bits for lorakit alone; lorakit adapter quantize --to bf16 makes a pair for PEFT")
    return fitting.with_plain_libraries(subject.target)


def _stop(subject: Subject) -> tuple[str, list[str]]:
    target = subject.target
    if not heads.writes(target.head):
        return "it writes no text", []
    ends, rows = sorted(target.eos_ids), len(target.tokenizer)
    beyond = [number for number in ends if number >= rows]
    faults = []
    if not ends:
        faults.append(
            "no token ends its text, so that it never stops: train it with a tokenizer that has such a token."
        )
    if beyond:
        faults.append(
            f"stop token {beyond[0]} is none of its {rows:,} tokens: manifest.json was edited. Use another copy."
        )
    own = target.tokenizer.eos_token_id
    if ends and own is not None and own not in ends:
        faults.append(
            f"the tokenizer ends text with {target.tokenizer.eos_token!r} ({own}), which is no stop token of "
            f"manifest.json ({ends}): it was edited. Use another copy."
        )
    named = ", ".join(f"{target.tokenizer.convert_ids_to_tokens(number)} ({number})" for number in ends)
    return ", ".join([named, *map(repr, target.stop_strings)]), faults


def _tokenizer(subject: Subject) -> tuple[str, list[str]]:
    tokens = len(subject.target.tokenizer)
    known = subject.manifest is not None and subject.manifest.tokenizer is not None
    return f"{tokens:,} tokens, {'cut as in training' if known else 'how training cut text is not known'}", []


def _template(subject: Subject) -> tuple[str, list[str]]:
    style = subject.target.style
    return (style.format.replace("_", " "), fitting.template_faults(subject.target) if style.chat_template else [])


def _privacy(subject: Subject) -> tuple[str, list[str]]:
    names = sorted(file.name for file in subject.folder.iterdir() if file.is_file() and file.name not in _UNSHARED)
    return f"no secret and no path of this computer in {len(names)} files", list(leaks(subject.folder, names))


_CHECKS: dict[str, Callable[[Subject], tuple[str, list[str]]]] = {
    "files": _files,
    "settings": _settings,
    "labels": _labels,
    "base": _base,
    "tensors": _tensors,
    "tokenizer": _tokenizer,
    "stop tokens": _stop,
    "template": _template,
    "privacy": _privacy,
    "plain libraries": _plain,
}
"""Name -> check, in the order in which they are told: what holds, and lines of what does not."""
