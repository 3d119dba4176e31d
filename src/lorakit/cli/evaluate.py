"""`lorakit evaluate`: how good a target is on rows, alone or beside another."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import decoding_options as options
from lorakit.cli import screen
from lorakit.cli.counting import told
from lorakit.cli.row_options import Settings, row_settings
from lorakit.data.readers.faults import counted
from lorakit.errors import Interrupted

if TYPE_CHECKING:
    from lorakit.workflows.evaluating import Evaluation


def evaluate(
    target: options.Target,
    data: Annotated[
        str, typer.Option(metavar="ROWS", help="Rows with what is right: a file, a folder, - or hf://name.")
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="base (what the target was trained on), or another target: side by side."),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Measure on a seeded sample of N rows; left out: all.")
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the sample and of the intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    base: options.Base = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The numbers alone.")] = False,
) -> None:
    """Measure how good a model is on rows it has not learned, with 95 % intervals.

    What is measured follows from what it was trained for.
    Text: perplexity and bits per byte. Masks: how many are filled right.
    Text to text: BLEU, chrF and ROUGE; rows of the same source are references of one another.
    Labels: accuracy, F1, a table of classes and what they are taken for. Spans: F1 of entities, answers found.

    Example: lorakit evaluate tiny-gpt --data recipe:quickstart-eval.jsonl --rows 50
    """
    from lorakit.workflows.evaluating import evaluate as measure

    reading = row_settings("evaluate", target, data, "--data", settings or [])
    try:
        with told(quiet or as_json, "rows measured") as tell:
            found = measure(
                target,
                reading,
                against=against,
                base=base,
                rows=rows,
                seed=seed,
                device=device,
                dtype=dtype,
                on_done=tell,
            )
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, "stopped; nothing was measured to the end.") from None
    if not quiet:
        for note in found.notes:
            screen.say(note, style="yellow")
    if as_json:
        screen.emit(json.dumps(found.as_json(), ensure_ascii=False) + "\n")
        return
    _show(found, quiet)


def _show(found: Evaluation, quiet: bool) -> None:
    from lorakit.cli.evaluation_tables import class_table, confusion_table, has_intervals, score_table

    several = f" of {counted(found.units, 'source')}" if found.units != found.rows else ""
    if not quiet:
        screen.say(f"{found.objective} on {counted(found.rows, 'row')}{several} · {found.origin}", style="bold")
    screen.show_fitting(score_table(found))
    for title, layouts in (("each class", class_table(found)), ("confusions", confusion_table(found))):
        if layouts:
            screen.emit("\n")
            if not quiet:
                screen.say(title, style="bold")
            screen.show_fitting(layouts)
    if not quiet:
        if has_intervals(found):
            screen.say("in brackets: 95 % of 1,000 resamples of the rows", style="dim")
        for name, signature in found.signatures.items():
            screen.say(f"{name}: {signature}", style="dim")
