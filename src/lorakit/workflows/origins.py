"""What is known of a target, for the manifest of what is made from it."""

from __future__ import annotations

from typing import Literal

from lorakit.adapters.bundle import Target
from lorakit.adapters.manifest import Base, Manifest
from lorakit.checkpoints.finding import tokenizer_fingerprint
from lorakit.workflows import tasks


def origin_of(target: Target, form: Literal["lora", "merged"]) -> Manifest:
    """Return the manifest of a target; where it has none, one of `form` with what its files tell."""
    return target.manifest or Manifest(
        form=form,
        base=Base(
            identity=target.base.identity,
            revision=target.base.revision,
            fingerprint=target.base.fingerprint,
            model_type=target.base.family.model_type,
        ),
        tokenizer=tokenizer_fingerprint(target.tokenizer),
        head=target.head,
        objective=tasks.settings_of(target).name,
    )
