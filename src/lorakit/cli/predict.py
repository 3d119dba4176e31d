"""`lorakit predict`: labels, scores, entities, answers, hidden words or text."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorakit.cli import decoding_options as options
from lorakit.cli import predictions, screen
from lorakit.cli.counting import told
from lorakit.cli.piped import as_text
from lorakit.cli.row_options import Settings, row_settings
from lorakit.errors import DataError, Interrupted, LorakitError

if TYPE_CHECKING:
    from lorakit.types import Row
    from lorakit.workflows.predicting import Predictor

CHUNK = 256
"""Rows answered between two reports; those of similar length among them are read side by side."""
_CSV, _JSON = ".csv", (".jsonl", ".ndjson")


def predict(
    target: options.Target,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What is judged; left out: what is piped in, a text a line.")
    ] = None,
    pair: Annotated[str | None, typer.Option(metavar="TEXT", help="Second text of a pair.")] = None,
    question: Annotated[str | None, typer.Option(metavar="TEXT", help="Question whose answer stands in TEXT.")] = None,
    input_file: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE", help="Many: JSONL, CSV or another table, or .txt, one a line."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=".csv or .jsonl for the predictions; left out: stdout."),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="How many labels, answers or words are listed.")] = 5,
    max_new_tokens: options.MaxNewTokens = 256,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object an input.")] = False,
    base: options.Base = None,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what a model makes of texts: labels, scores, entities, answers, hidden words, or text.

    What is said follows from what the model was trained for.
    A masked language model fills each [MASK]; one trained on neighbours says if --pair follows.
    A file's columns are recognised as in train, without what is to be predicted.

    Example: lorakit predict tiny-bert "Paris is the [MASK] of France."
    """
    reading = row_settings("predict", target, input_file or "-", "--input", settings or [])
    typed = {"text": text, "text_pair": pair, "question": question}
    rows, notes = _rows(typed, input_file, lambda: _from_file(reading))
    # Of a text that was typed the prediction alone is told; many are told with the columns they came with.
    whole = input_file is not None or (text is None and output is not None)
    if output is not None:
        _check_output(output, input_file, text is not None, force)
    columns = list(dict.fromkeys(column for row in rows for column in row.fields))
    as_csv = output is not None and output.suffix.lower() == _CSV
    if whole and (as_json or output is not None):
        predictions.check_columns(columns, as_csv)
    from lorakit.workflows.predicting import open_predictor

    predictor = open_predictor(target, reading, base=base, revision=revision, device=device, dtype=dtype)
    if input_file is None:
        predictor.check_given(rows)
    for note in () if quiet else (*predictor.target.notes, *notes):
        screen.say(note)
    lines = _lines(columns, as_csv, as_json or output is not None, whole, several=len(rows) > 1)
    _answer(predictor, rows, top, max_new_tokens, output, lines, quiet or not whole)


_Lines = Callable[["Row", dict[str, Any]], list[str]]
"""What is written of a row and its prediction, without the last newline."""


def _lines(columns: Sequence[str], as_csv: bool, as_json: bool, whole: bool, several: bool) -> _Lines:
    if as_csv:
        table = predictions.CsvLines(columns)
        return lambda row, found: table.lines(row.fields, found)
    if as_json:
        if whole:
            return lambda row, found: [predictions.json_line(row.fields, found)]
        return lambda row, found: [json.dumps(found, ensure_ascii=False)]
    if several:
        return lambda row, found: [predictions.heading(row) + predictions.shown(found)]
    return lambda row, found: [predictions.shown(found).removesuffix("\n")]


def _answer(
    predictor: Predictor,
    rows: Sequence[Row],
    top: int,
    max_new_tokens: int,
    output: Path | None,
    lines: _Lines,
    quiet: bool,
) -> None:
    """Predict row by row, in chunks, and write each chunk's lines; a file is whole or not there at all."""
    from lorakit.workflows.prompt_files import answer_file

    asked = predictor.canonical(rows)
    done = 0
    try:
        with (
            nullcontext(lambda line: screen.emit(f"{line}\n")) if output is None else answer_file(output) as write,
            told(quiet, "rows predicted") as tell,
        ):
            for start in range(0, len(rows), CHUNK):
                chunk = slice(start, start + CHUNK)
                for row, found in zip(rows[chunk], predictor.predict(asked[chunk], top, max_new_tokens), strict=True):
                    for line in lines(row, found):
                        write(line)
                    done += 1
                tell(done, len(rows))
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, f"stopped; {done:,} of {len(rows):,} predictions written.") from None


def _rows(
    typed: dict[str, str | None], input_file: str | None, read: Callable[[], tuple[list[Row], list[str]]]
) -> tuple[list[Row], list[str]]:
    """Return the rows that were typed, piped in or named as a file; several of these at once are refused."""
    from lorakit.workflows.predicting import rows_of

    given = {name: value for name, value in typed.items() if value is not None}
    if input_file is not None:
        if given:
            raise LorakitError("a text and --input were given; give one of them.")
        return read()
    if "question" in given and "text_pair" in given:
        raise LorakitError("--question asks about TEXT and --pair compares with it; give one of them.")
    if not given:
        lines = rows_of(_piped(), "stdin")
        rows = [row for row in lines if row.fields["text"].strip()]
        blank = len(lines) - len(rows)
        return rows, [f"stdin: {blank} blank line{'s' * (blank > 1)} skipped."] if blank else []
    if "text" not in given:
        raise LorakitError("--pair and --question need TEXT beside them; give it.")
    if "question" in given:
        given["context"] = given.pop("text")
    return rows_of([given]), []


def _from_file(reading: Any) -> tuple[list[Row], list[str]]:
    from lorakit.workflows.predicting import read_inputs

    return read_inputs(reading)


def _piped() -> list[str]:
    """Return the lines that were piped in."""
    if sys.stdin.isatty():
        raise LorakitError("nothing to judge was given: add a text, pipe texts in, or name a file with --input.")
    text = as_text(sys.stdin.buffer.read(), "what was piped in")
    if not text.strip():
        raise LorakitError("nothing was piped in; a line is a text.")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _check_output(output: Path, input_file: str | None, typed: bool, force: bool) -> None:
    from lorakit.workflows.prompt_files import check_output

    if output.suffix.lower() not in (_CSV, *_JSON):
        raise DataError(f"{output.name}: predictions are written as .csv or .jsonl; give a name that ends so.")
    if typed:
        raise LorakitError(
            "--output takes the predictions for --input or piped lines; for one text, send stdout to a file: > FILE."
        )
    check_output(output, Path(input_file or "-"), force)
