"""`lorakit generate`: text from a base model, or from what was trained on one."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.cli import decoding_options as options
from lorakit.cli import screen
from lorakit.cli.counting import counted
from lorakit.cli.piped import as_text
from lorakit.cli.statistics import Statistics
from lorakit.cli.steps import StepTable
from lorakit.errors import Interrupted, LorakitError

if TYPE_CHECKING:
    from lorakit.generation.settings import DecodingSettings
    from lorakit.workflows.completions import Completion
    from lorakit.workflows.generating import Writer
    from lorakit.workflows.prompt_files import PromptRow


def generate(
    target: options.Target,
    prompt: options.Prompt = None,
    input_file: options.Input = None,
    output: options.Output = None,
    max_new_tokens: options.MaxNewTokens = 256,
    stop: options.Stop = None,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    num_samples: options.NumSamples = 1,
    num_beams: options.NumBeams = 1,
    length_penalty: options.LengthPenalty = None,
    seed: options.Seed = 0,
    show_steps: options.ShowSteps = False,
    as_json: options.Json = False,
    raw: options.Raw = False,
    base: options.Base = None,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    speculate: options.Speculate = None,
    fast: options.Fast = True,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write text, one next token after another, until the model ends it.

    The answer goes to stdout as it comes: without the prompt, with a newline at its end.
    On a terminal its control characters are made visible; a pipe or file gets it exactly.
    The prompt "" starts from nothing.

    Example: lorakit generate runs/tickets "Subject: printer"
    """
    from lorakit.generation.settings import DecodingSettings

    settings = DecodingSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        num_samples=num_samples,
        num_beams=num_beams,
        length_penalty=length_penalty,
        seed=seed,
        stop=stop or [],
    )
    from lorakit.workflows import quantizing, speeding

    quantizing.check_quantize(quantize, device, dtype)
    speeding.check_speculate(speculate, settings)
    device, dtype = ("cpu", "float32") if quantize else (device, dtype)
    view = _View(show_steps, as_json, quiet)
    source = _source(prompt, input_file, output, force, settings, view)
    from lorakit.workflows.generating import open_writer

    how: dict[str, Any] = {"raw": raw, "fast": fast, "quantize": quantize, "speculate": speculate}
    writer = open_writer(target, base=base, revision=revision, device=device, dtype=dtype, **how)
    view.say(*writer.target.notes)
    if quantize is not None:
        read = [source] if isinstance(source, str) else [row.prompt for row in source]
        view.say(writer.quantize(read))
    if isinstance(source, str):
        _answer(writer, source, settings, view)
    else:
        _answer_rows(writer, source, output, settings, view)


@dataclass(frozen=True, slots=True)
class _View:
    """What is shown beside the text."""

    steps: bool
    json: bool
    quiet: bool

    def say(self, *lines: str) -> None:
        for line in () if self.quiet else lines:
            screen.say(line)


def _source(
    prompt: str | None,
    input_file: Path | None,
    output: Path | None,
    force: bool,
    settings: DecodingSettings,
    view: _View,
) -> str | list[PromptRow]:
    """Return the one prompt, or the rows of the file; options that cannot be meant together are refused first."""
    if view.steps and (input_file is not None or settings.num_samples > 1):
        raise LorakitError("--show-steps shows the steps of one answer; leave out --input and --num-samples.")
    if view.steps and settings.num_beams > 1:
        raise LorakitError("a beam search takes no single path whose steps could be shown; leave out --show-steps.")
    if input_file is None:
        if output is not None:
            raise LorakitError("--output takes the answers to --input; for one prompt, send stdout to a file: > FILE.")
        return _piped() if prompt is None else prompt
    if prompt is not None:
        raise LorakitError("a prompt and --input were given; give one of them.")
    from lorakit.workflows.prompt_files import check_output, read_prompts

    if output is not None:
        check_output(output, input_file, force)
    rows, notes = read_prompts(input_file)
    view.say(*notes)
    return rows


def _piped() -> str:
    """Return what was piped in, without the newline that ends it."""
    if sys.stdin.isatty():
        raise LorakitError('no prompt was given: add one, pipe one in, or give "" to start from nothing.')
    text = as_text(sys.stdin.buffer.read(), "the piped prompt")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise LorakitError('nothing was piped in; give a prompt, "" to start from nothing.')
    return text


def _answer(writer: Writer, prompt: str, settings: DecodingSettings, view: _View) -> None:
    from lorakit.generation.answers import Watcher

    table = StepTable(writer.target.tokenizer, writer.target.eos_ids)
    streams = not (view.steps or view.json) and settings.num_samples == 1
    lines = view.steps and not view.json
    if lines:
        screen.emit(table.header() + "\n")
    watcher = Watcher(
        on_text=(lambda _, __, piece: screen.emit(piece)) if streams else None,
        on_step=(lambda _, __, step: screen.emit(table.line(step) + "\n")) if lines else None,
        top=StepTable.SHOWN if view.steps else 0,
    )
    statistics = Statistics(writer.paths)
    try:
        completions = writer.write([prompt], settings, watcher=watcher)
    except KeyboardInterrupt:
        if streams:
            screen.emit("\n")
        raise _stopped("the answer is not whole" if streams or lines else "nothing was written") from None
    line = statistics.line(completions)
    for completion in completions:
        if view.json:
            screen.emit(json.dumps(_as_json(completion, table), ensure_ascii=False) + "\n")
            continue
        if settings.num_samples > 1:
            view.say(f"answer {completion.sample + 1} of {settings.num_samples}")
        screen.emit(("\n" if lines else "") + ("" if streams else completion.text) + "\n")
    view.say(line)


def _as_json(completion: Completion, table: StepTable) -> dict[str, object]:
    steps = [
        {
            "taken": table.token(step.taken),
            "id": step.taken,
            "probability": step.probability,
            "candidates": [
                {"token": table.token(number), "id": number, "probability": share} for number, share in step.candidates
            ],
        }
        for step in completion.steps
    ]
    return {**completion.as_json(), **({"steps": steps} if steps else {})}


def _answer_rows(
    writer: Writer, rows: list[PromptRow], output: Path | None, settings: DecodingSettings, view: _View
) -> None:
    from lorakit.workflows.prompt_files import answer_file, answers

    statistics = Statistics(writer.paths)
    written: list[Completion] = []
    lines = nullcontext(_emit_line) if output is None else answer_file(output)
    try:
        with lines as write, counted(len(rows), view.quiet) as tell:
            for line, completion in answers(writer, rows, settings, tell):
                write(line)
                written.append(completion)
    except KeyboardInterrupt:
        raise _stopped(f"{len(written):,} answer{'s' * (len(written) != 1)} written") from None
    view.say(statistics.line(written))


def _emit_line(line: str) -> None:
    screen.emit(f"{line}\n")


def _stopped(consequence: str) -> Interrupted:
    return Interrupted(signal.SIGINT, f"stopped; {consequence}.")
