"""How encoder-decoders are asked: the source framed as in training; and who writes at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lorakit.checkpoints import heads
from lorakit.errors import LorakitError

if TYPE_CHECKING:
    from lorakit.adapters.bundle import Target


def check_writes(target: Target) -> None:
    """Raise LorakitError where a target labels or reads, but writes no text."""
    if heads.writes(target.head):
        return
    family = target.base.family
    if family.kind == "encoder":
        raise LorakitError(f"a {family.model_type} model reads, it does not write: use lorakit predict.")
    raise LorakitError(f"{target.folder.name} was trained for {target.head.task}, not to write: use lorakit predict.")


def source_framing(target: Target, raw: bool) -> Callable[[str], list[int]] | None:
    """Return what turns a text into what an encoder reads, or None for a model without one.

    The task prefix of the training stands before each text, unless `raw`. A model that was not trained from sources to
    targets may fill gaps: its sentinels (``<extra_id_0>``) and masks are meant where they are typed.
    """
    if target.base.family.kind != "encoder_decoder":
        return None
    from lorakit.data.source_text import SourceEncoder

    task = {} if target.manifest is None else target.manifest.task
    encoder = SourceEncoder(target.tokenizer, "" if raw else str(task.get("prefix", "")))
    keep = () if task.get("name") == "seq2seq_lm" else encoder.gaps()
    return lambda text: [int(token) for token in encoder.sources([text], keep)[0].ids]
