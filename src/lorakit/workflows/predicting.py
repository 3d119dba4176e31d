"""The verb `predict`: open a target, frame inputs as in training, say what it makes of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lorakit.adapters.bundle import Target
from lorakit.checkpoints.heads import writes
from lorakit.data.decoding import ByteSource, inspect
from lorakit.data.formats import canonical, recognise
from lorakit.data.settings import DataSettings
from lorakit.data.sources import read
from lorakit.errors import DataError, LorakitError
from lorakit.generation.settings import DecodingSettings
from lorakit.objectives.seq2seq_lm import source_and_target
from lorakit.types import FormatName, Objective, Row
from lorakit.workflows import tasks
from lorakit.workflows.generating import Writer
from lorakit.workflows.placing import check_place, place
from lorakit.workflows.prompt_text import Prompt, check_unicode

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Prediction = dict[str, Any]
"""What is said of one input, as `--json` writes it; its keys depend on what the target was trained for.

``label``, ``probability``, ``top``; of several labels ``labels``, ``top``; ``score``; ``tokens``, ``tags``,
``entities``; ``answer``, ``start``, ``end``, ``probability``, ``top``; ``text``, ``masks``; ``is_next``,
``probability``; or of a model that writes ``text``, ``tokens``, ``finish_reason``, ``log_probability``.
"""

Input = str | tuple[str, str] | Mapping[str, Any]
"""A text, a pair of texts, or values by column: ``text``, ``text_pair``, ``tokens``, ``question``, ``context``."""

_READS: dict[str, tuple[FormatName, ...]] = {
    "causal_lm": ("prompt_completion", "chat", "text"),
    "masked_lm": ("labelled",),
    "span_corruption": ("text",),
    "seq2seq_lm": ("source_target", "prompt_completion", "extractive", "text"),
    "sequence_classification": ("labelled",),
    "token_classification": ("tagged", "text"),
    "question_answering": ("extractive",),
}
"""Objective -> the formats whose questions it answers; of ``labelled`` rows the one text or the two."""

_CURE = "Each row gets its prediction, so none is skipped: mend such rows, or take them out."


@dataclass(frozen=True)
class Predictor:
    """A loaded target: answers rows, as often as asked."""

    target: Target
    objective: Objective
    model: nn.Module
    """In eval mode, with the head that the objective needs."""
    settings: DataSettings
    """How rows are read."""

    def check_given(self, rows: Sequence[Row]) -> None:
        """Refuse a second text or a question, given by themselves, that this target would pass over.

        Columns of a file may go unread; what was typed is meant.

        Raises:
            DataError: Says which, and what it was trained for.
        """
        name, reads = self.objective.name, _READS[self.objective.name]
        learned = f"this model learned {name}"
        if any("text_pair" in row.fields for row in rows) and "labelled" not in reads:
            instead = "Give --question in its place." if name == "question_answering" else "Leave it out."
            raise DataError(f"{learned}, which reads no second text (--pair). {instead}")
        if any({"question", "context"} <= set(row.fields) for row in rows) and "extractive" not in reads:
            raise DataError(f"{learned}, which answers no questions. Leave out --question.")

    def canonical(self, rows: Sequence[Row]) -> list[Row]:
        """Bring rows, as they were read, to the names that the objective reads; answers and labels may be missing.

        Raises:
            DataError: The columns hold nothing that this target reads, or a row lacks some of it.
        """
        if self.settings.broken != "error":
            raise DataError(f"data.broken is {self.settings.broken!r}. {_CURE}")
        if self.objective.name == "question_answering" and all(set(row.fields) <= {"text"} for row in rows):
            raise DataError(
                "this model answers a question about a text, and no question was given: lorakit predict TARGET TEXT "
                "--question TEXT, or the columns question and context."
            )
        reads = _READS[self.objective.name]
        format = recognise(rows, self.settings.columns, reads, answered=False)
        return canonical(rows, format, normalise=tasks.normalisation(self.target, self.settings), cure=_CURE)[0]

    def predict(self, rows: Sequence[Row], top: int = 5, max_new_tokens: int = 256) -> list[Prediction]:
        """Return what the target makes of each row, in their order.

        Args:
            rows: From `canonical`.
            top: How many labels, answers or words of each mask are listed with their probabilities.
            max_new_tokens: Tokens that a target which writes may write.

        Raises:
            DataError: A row cannot be read by the model; names it.
        """
        if not rows:
            return []
        if not writes(self.target.head):
            return cast("list[Prediction]", cast(Any, self.objective).predict(self.model, rows, top=top))
        writer = Writer(self.target, cast("PreTrainedModel", self.model), composes=False)
        found: list[Prediction] = [{} for _ in rows]
        settings = DecodingSettings(max_new_tokens=max_new_tokens)
        prompts = [_prompt(row.fields) for row in rows]
        for number, (completion,) in writer.each(prompts, settings, places=[row.where for row in rows]):
            found[number] = completion.as_json()
        return found


def open_predictor(
    target: str | Path,
    settings: DataSettings | None = None,
    *,
    base: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Predictor:
    """Load a target for predictions; a LoRA pair is folded into the weights in memory.

    Args:
        target: Adapter, run, merged or base model: a folder, a built-in name or a Hub id.
        settings: How rows are read, as in training: columns, `normalise`, `max_length` (of a target that does not
            write), `too_long` (``truncate`` cuts long texts at their end; all else makes them errors).
        base: Base of an adapter that does not say where it is.
        revision: Branch, tag or commit on the Hub.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.

    Raises:
        LorakitError: The target or its base is not found or damaged, has no trained head, or the device is not there.
    """
    check_place(device, dtype)
    from lorakit.adapters.bundle import open_target

    settings = settings or _as_typed()
    opened = open_target(str(target), revision, base)
    if settings.max_length is not None and writes(opened.head):
        raise DataError(
            f"data.max_length is {settings.max_length:,}, and {target} writes: it reads what its positions hold. Leave "
            f"data.max_length out; --max-new-tokens bounds what is written."
        )
    limits = [length for length in (settings.max_length, opened.base.max_positions) if length is not None]
    objective = tasks.objective_of(opened, None, min(limits, default=None), settings.too_long)
    chosen_device, chosen_dtype = place(device, dtype, opened.base.family)
    model = opened.load(chosen_dtype, "sdpa", chosen_device, merge=True)
    return Predictor(opened, objective, model, settings)


def predict(
    target: str | Path,
    inputs: Input | Sequence[Input],
    *,
    top: int = 5,
    base: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    truncate: bool = False,
    max_new_tokens: int = 256,
) -> list[Prediction]:
    """Say what a target makes of inputs: labels, scores, entities, answers, hidden words, or text.

    Args:
        target: Adapter, run, merged or base model: a folder, a built-in name or a Hub id.
        inputs: A text, a pair of texts (a tuple), values by column, or a list of these.
        top: How many labels, answers or words of each mask are listed with their probabilities.
        base: Base of an adapter that does not say where it is.
        revision: Branch, tag or commit on the Hub.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        truncate: Cut texts that are longer than the model reads at their end; off: they are errors.
        max_new_tokens: Tokens that a target which writes may write.

    Returns:
        A mapping an input, in their order.

    Raises:
        LorakitError: Anything the caller can put right; the message says what.
    """
    listed = cast("Sequence[Input]", inputs if isinstance(inputs, list) else [inputs])
    if not listed:
        return []
    rows = rows_of(listed)
    settings = _as_typed().model_copy(update={"too_long": "truncate" if truncate else "error"})
    predictor = open_predictor(target, settings, base=base, revision=revision, device=device, dtype=dtype)
    predictor.check_given(rows)
    return predictor.predict(predictor.canonical(rows), top, max_new_tokens)


def rows_of(inputs: Sequence[Input], source: str = "input") -> list[Row]:
    """Return inputs as rows.

    Args:
        inputs: Texts, pairs of texts, or values by column.
        source: What messages call the place they came from.

    Raises:
        LorakitError: A text is no Unicode text.
    """
    rows = [Row(_fields(one), source, number) for number, one in enumerate(inputs, start=1)]
    for row in rows:
        for value in row.fields.values():
            if isinstance(value, str):
                check_unicode(value, f"{row.where}: the text")
    return rows


def read_inputs(settings: DataSettings) -> tuple[list[Row], list[str]]:
    """Read the rows that `settings.train` names: a text a line of a ``.txt``, else a table (JSONL, CSV, Parquet, ...).

    Returns:
        The rows in the file's order, and what the user should know about the file.

    Raises:
        DataError: The file cannot be read, or holds no rows.
    """
    if not (isinstance(settings.train, str) and settings.train.lower().endswith(".txt")):
        reading = read(settings.train, settings)
        return reading.rows, reading.notes
    path = Path(settings.train)
    file = inspect(ByteSource(path.name, path))
    lines = [(number, line.rstrip("\r\n")) for number, line in file.lines()]
    rows = [Row({"text": line}, path.name, number) for number, line in lines if line.strip()]
    if not rows:
        raise DataError(f"{path.name} holds no texts; each line is one.")
    blank = len(lines) - len(rows)
    return rows, [*file.notes, *([f"{path.name}: {blank} blank line{'s' * (blank > 1)} skipped."] if blank else [])]


def _as_typed() -> DataSettings:
    """Return the settings of rows that come from no file."""
    return DataSettings(train="-")


def _fields(one: Input) -> dict[str, Any]:
    if isinstance(one, str):
        return {"text": one}
    if isinstance(one, Mapping):
        return dict(one)
    if len(one) != 2:
        raise LorakitError(f"a pair is two texts, and {len(one)} were given. Give a text, or a tuple of two.")
    return {"text": one[0], "text_pair": one[1]}


def _prompt(fields: Mapping[str, Any]) -> Prompt:
    """Return what a model that writes reads of a row whose answer is not known."""
    if "text" in fields:
        return cast(Prompt, fields["text"])
    if "messages" in fields:
        return cast(Prompt, fields["messages"])
    pair = source_and_target({"target": "", "completion": "", "answers": [{"text": ""}], **fields})
    return "" if pair is None else pair[0]
