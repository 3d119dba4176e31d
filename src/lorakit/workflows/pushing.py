"""`lorakit push`: what is shared of a target, put on the Hub with one commit, after everything was looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorakit import __version__
from lorakit.adapters import card, sharing
from lorakit.adapters.bundle import Target, open_target
from lorakit.adapters.contents import shared_names
from lorakit.adapters.facts import CARD, facts
from lorakit.adapters.manifest import Manifest
from lorakit.adapters.privacy import leaks
from lorakit.adapters.sharing import Outgoing
from lorakit.checkpoints import locating
from lorakit.checkpoints.hashes import HASHES, UNHASHED, listing
from lorakit.errors import LorakitError, nearest
from lorakit.workflows.checking import check
from lorakit.workflows.evaluating import Evaluation, evaluate
from lorakit.workflows.origins import origin_of

_WHAT = {"lora": "LoRA adapter", "changed": "trained weights", "full": "fine-tune", "merged": "merged fine-tune"}
_LISTS = ("language", "datasets", "tags")
_GIVEN = ("license", "license_name", "license_link", *_LISTS)
"""What only its author knows of a model."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What went to the Hub, or would go."""

    name: str
    files: tuple[Outgoing, ...]
    card: str
    message: str
    """Of the commit."""
    left: tuple[str, ...]
    """Names in the folder that stay behind."""
    notes: tuple[str, ...]
    url: str | None = None
    """Page of the repository; None where nothing was sent."""


def push(
    target: str,
    name: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    force: bool = False,
    message: str | None = None,
    data: str | None = None,
    given: Mapping[str, str] | None = None,
    base: str | None = None,
    revision: str | None = None,
) -> Pushed:
    """Put what is shared of a target into a repository of the Hub, whole or not at all.

    Rows, states of training and local.json with its paths stay behind. The card is the folder's README.md, as it was
    written or edited, with the name of the repository in it.

    Args:
        target: Adapter, run or merged model: a folder, a `.lora` file or a Hub id.
        name: ``owner/name`` on the Hub.
        private: Make a new repository private.
        dry_run: Only return what would go; nobody is asked for anything.
        force: Also push where another model is.
        message: Of the commit; left out: what it is, made with which lorakit.
        data: Rows to measure on, for scores with intervals in the card.
        given: For the front matter of the card: ``license``, ``language``, ``datasets``, ``tags``, …
        base: Folder or Hub id of the base of an adapter, where it does not know it.
        revision: Branch, tag or commit of the target on the Hub.

    Raises:
        LorakitError: A check finds a fault, a file holds a secret or a path, or the Hub does not take it.
    """
    sharing.check_name(name)
    front = _front(given or {})
    if dry_run and data is not None and data.startswith("hf://"):
        raise LorakitError(f"--dry-run asks nobody, and {data} is on the Hub: leave out one of them.")
    with locating.offline() if dry_run else contextlib.nullcontext():
        checked = check(target, base, revision)
        if checked.faults:
            faults = [f"  {one.name}: {fault}" for one in checked.looked for fault in one.faults]
            raise LorakitError("\n".join([f"{target} is not pushed, as something is wrong with it:", *faults]))
        opened = open_target(target, revision, base)
        if opened.form == "base":
            raise LorakitError(f"{target} is a base model, and nothing was trained on it: push an adapter or a run.")
        measured = evaluate(opened.folder, data, base=base) if data is not None else None
        manifest = origin_of(opened, "lora")
    readme = _card(opened, manifest, name, front, measured)
    names = shared_names(opened.folder, opened.form)
    files = _outgoing(opened.folder, {*names, CARD}, readme)
    faults = list(leaks(opened.folder, [file.name for file in files], anew=_anew(files)))
    if faults:
        raise LorakitError("\n".join([f"{target} is not pushed, as what is in it is for nobody else:", *faults]))
    kept = {entry.name for entry in opened.folder.iterdir()} - {file.name for file in files}
    what = f"{_WHAT[manifest.form]} of {manifest.base.identity}, made with lorakit {__version__}"
    notes = tuple(_notes(manifest, readme, data))
    pushed = Pushed(name, tuple(files), readme, message or what, tuple(sorted(kept)), notes)
    if dry_run:
        return pushed
    sent = sharing.send(name, files, pushed.message, private, force)
    gone = (f"no longer in {name}: {', '.join(sent.removed)}",) if sent.removed else ()
    return replace(pushed, notes=(*notes, *gone, *sent.notes), url=sent.url)


def _front(given: Mapping[str, str]) -> dict[str, Any]:
    for key in given:
        if key not in _GIVEN:
            hint = nearest(key, _GIVEN)
            raise LorakitError(f"--card {key}: one of {', '.join(_GIVEN)} is meant. {hint}".rstrip())
    return {key: _split(value) if key in _LISTS else value for key, value in given.items()}


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _card(target: Target, manifest: Manifest, name: str, given: Mapping[str, Any], measured: Evaluation | None) -> str:
    """Return README.md as it is in the folder, or a new one, with what is asked for and the name in its commands."""
    file = target.folder / CARD
    front, body = card.parted(file.read_text(encoding="utf-8")) if file.is_file() else ({}, "")
    front = {**card.metadata(manifest), **front, **given}
    front["tags"] = list(dict.fromkeys([*card.metadata(manifest)["tags"], *_tags(front), *given.get("tags", ())]))
    body = f"{body.strip()}\n" if body.strip() else card.text(manifest, facts(target.folder).peft)
    if measured is not None:
        front |= _index(measured, name, front["pipeline_tag"])
        scores = _scores(measured)
        body = body.replace(card.USE, f"{scores}\n\n{card.USE}", 1) if card.USE in body else f"{body}\n{scores}\n"
    return card.joined(front, body.replace(card.PLACE, name))


def _tags(front: Mapping[str, Any]) -> list[str]:
    tags = front.get("tags") or []
    return [str(tag) for tag in tags] if isinstance(tags, list) else [str(tags)]


def _scores(measured: Evaluation) -> str:
    lines = ["| | | 95 % interval |", "| --- | --- | --- |"]
    for name, score in measured.target.scores.items():
        interval = "" if score.low is None or score.high is None else f"{score.low:.4g} to {score.high:.4g}"
        lines.append(
            f"| {name.replace('_', ' ')} | {'—' if score.value is None else f'{score.value:.4g}'} | {interval} |"
        )
    rows = f"On {measured.rows:,} rows of {measured.origin} (`{measured.data}`); intervals by a bootstrap over them."
    return "\n\n".join(["## Scores", rows, "\n".join(lines)])


def _index(measured: Evaluation, name: str, task: str) -> dict[str, Any]:
    """Return the scores as the Hub's model index has them."""
    from huggingface_hub import EvalResult, ModelCardData

    defined = {key: score for key, score in measured.target.scores.items() if score.value is not None}
    results = [
        EvalResult(
            task_type=task,
            dataset_type=measured.origin.removeprefix("hf://"),
            dataset_name=measured.origin.removeprefix("hf://"),
            metric_type=key,
            metric_value=score.value,
            metric_name=key
            if score.low is None or score.high is None
            else f"{key} (95 % interval {score.low:.4g} to {score.high:.4g})",
        )
        for key, score in defined.items()
    ]
    indexed = ModelCardData(eval_results=results, model_name=name.rpartition("/")[2]).to_dict()
    return {"metrics": list(defined), "model-index": indexed["model-index"]}


def _outgoing(folder: Path, names: set[str], readme: str) -> list[Outgoing]:
    hashes = listing(folder, (name for name in names if name not in UNHASHED))
    anew = {CARD: readme.encode(), HASHES: hashes.encode()}
    return [Outgoing(name, anew.get(name, folder / name)) for name in sorted({*names, HASHES})]


def _anew(files: list[Outgoing]) -> dict[str, bytes]:
    return {file.name: file.content for file in files if isinstance(file.content, bytes)}


def _notes(manifest: Manifest, readme: str, data: str | None) -> list[str]:
    front, _ = card.parted(readme)
    notes = list(manifest.notes)
    if "base_model" not in front:
        notes.append(
            f"the card has no base_model, as {manifest.base.identity} is not on the Hub: its page will not stand under "
            f"that of its base."
        )
    if "license" not in front:
        notes.append("the card names no licence: --card license=NAME says what others may do with it.")
    if data is None:
        notes.append("the card has no intervals: --data ROWS measures scores with them.")
    return notes
