"""What kind of thing the files of a folder are."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from lorakit.adapters import changed
from lorakit.adapters.lora_config import CONFIG
from lorakit.adapters.manifest import Manifest
from lorakit.errors import CheckpointError

TargetForm = Literal["base", "lora", "changed", "full", "merged"]


def form_of(folder: Path, manifest: Manifest | None) -> TargetForm:
    """Return what the files of a folder are, which its manifest must say too.

    Raises:
        CheckpointError: They are nothing that lorakit reads, two things at once, or not what the manifest says.
    """
    present: dict[TargetForm, bool] = {
        "lora": (folder / CONFIG).exists(),
        "changed": (folder / changed.WEIGHTS).exists(),
        "base": (folder / "config.json").exists(),
    }
    forms = [form for form, there in present.items() if there]
    if not forms:
        cure = "Give the folder of a run, an adapter or a model."
        if (folder / "checkpoints").is_dir():
            cure = f"Its training has not ended; go on with it: lorakit train --resume -o {shlex.quote(str(folder))}"
        raise CheckpointError(
            f"{folder} holds neither a model (config.json) nor an adapter ({CONFIG} or {changed.WEIGHTS}). {cure}"
        )
    if len(forms) > 1:
        raise CheckpointError(f"{folder} holds an adapter and a whole model at once; move one of them elsewhere.")
    form = forms[0]
    if manifest is None:
        if form == "changed":
            raise CheckpointError(f"{folder} lacks manifest.json, without which {changed.WEIGHTS} cannot be placed.")
        return form
    if form == "base" and manifest.form in ("full", "merged"):
        return manifest.form
    if form != manifest.form:
        raise CheckpointError(f"{folder}: manifest.json says {manifest.form!r}, but the files are of form {form!r}.")
    return form
