"""`lorakit adapter info`: what the files of a target say about it."""

from __future__ import annotations

from lorakit.adapters.facts import Facts, facts
from lorakit.checkpoints.locating import locate


def info(target: str, revision: str | None = None, base: str | None = None) -> Facts:
    """Return what is known of an adapter, a run or a model; its base is neither looked for nor read.

    Only of a `.lora` file that holds the difference to its base is the whole model put together first.

    Args:
        target: Adapter, run, merged or base model: a folder, a built-in, or a Hub id.
        revision: Branch, tag or commit on the Hub.
        base: Folder or Hub id of the base that a file holds the difference to, where the file does not know it.

    Raises:
        CheckpointError: Nothing of that name, or one of its small files or headers is damaged.
    """
    return facts(locate(target, revision, base).folder)
