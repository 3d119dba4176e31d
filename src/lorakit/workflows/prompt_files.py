"""Files of prompts in, files of answers out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lorakit.data.decoding import ByteSource, inspect
from lorakit.errors import DataError, Interrupted, LorakitError
from lorakit.generation.settings import DecodingSettings

if TYPE_CHECKING:
    from lorakit.workflows.completions import Completion
    from lorakit.workflows.generating import Writer
    from lorakit.workflows.prompt_text import Prompt

_WRITTEN = ("text", "tokens", "finish_reason", "log_probability", "sample")
_ACCEPTED = 'a JSON string, {"prompt": "text"} or {"messages": [{"role": "user", "content": "text"}]}'


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt of a file."""

    prompt: Prompt
    fields: dict[str, Any]
    """What of the row is passed on to the answer: the prompt under its own name, and every other column."""
    where: str
    """``prompts.jsonl line 3``."""


def read_prompts(path: Path) -> tuple[list[PromptRow], list[str]]:
    """Read prompts: a `.txt` holds one a line; a `.jsonl` a JSON string, `prompt` or `messages` a line.

    Returns:
        The rows in the file's order, and what the user should know about the file.

    Raises:
        DataError: The file cannot be read, or a line holds no prompt; names the line.
    """
    kinds: dict[str, Callable[[str, str], PromptRow]] = {".txt": _plain_row, ".jsonl": _json_row, ".ndjson": _json_row}
    if path.suffix.lower() not in kinds:
        raise DataError(f"{path.name}: prompts are read from .jsonl (or .ndjson) and .txt files; rename or convert it.")
    read_row = kinds[path.suffix.lower()]
    file = inspect(ByteSource(path.name, path))
    lines = [(number, line.rstrip("\r\n")) for number, line in file.lines()]
    rows = [read_row(line, f"{path.name} line {number}") for number, line in lines if line.strip()]
    if not rows:
        raise DataError(f"{path.name} holds no prompts; each line is one.")
    blank = len(lines) - len(rows)
    notes = [f"{path.name}: {blank} blank line{'s' * (blank > 1)} skipped."] if blank else []
    return rows, [*file.notes, *notes]


def answers(
    writer: Writer,
    rows: Sequence[PromptRow],
    settings: DecodingSettings,
    on_done: Callable[[int], None] | None = None,
) -> Iterator[tuple[str, Completion]]:
    """Write answers to all rows, and give each as soon as it and all before it are there.

    Yields:
        A line of JSON and the answer it tells, in the order of the rows; the line holds the row's own columns first.

    Raises:
        LorakitError: A prompt cannot be read by the model; names its line.
    """
    prompts, places = [row.prompt for row in rows], [row.where for row in rows]
    for number, completions in writer.each(prompts, settings, places=places, on_done=on_done):
        row = rows[number]
        for completion in completions:
            sample = {"sample": completion.sample} if settings.num_samples > 1 else {}
            yield json.dumps({**row.fields, **completion.as_json(), **sample}, ensure_ascii=False), completion


@contextlib.contextmanager
def answer_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Give a function that appends a line to a file aside, which becomes `path` when the block ends without an error.

    On an error or Ctrl-C the finished lines are kept beside it as `PATH.partial`, and `path` is left as it was.

    Raises:
        Interrupted: Ctrl-C; the message counts the lines that are kept.
        DataError: The disk is full, or the folder cannot be written; nothing is kept.
        LorakitError: What the block raised, with the lines that are kept.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    partial = path.with_name(f"{path.name}.partial")
    count = 0

    def write(line: str) -> None:
        nonlocal count
        stream.write(f"{line}\n")
        stream.flush()
        count += 1

    try:
        with aside.open("w", encoding="utf-8", newline="\n") as stream:
            yield write
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
    except (KeyboardInterrupt, LorakitError) as error:
        kept = f"the {count:,} finished line{'s are' if count != 1 else ' is'} kept in {partial}." if count else ""
        if count:
            aside.replace(partial)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(signal.SIGINT, f"stopped; {kept or 'nothing was written.'}") from None
        if not count:
            raise
        raise LorakitError(f"{error}\n{kept}") from error
    finally:
        aside.unlink(missing_ok=True)


def check_output(path: Path, source: Path, force: bool) -> None:
    """Raise DataError where `answer_file` would fail, or replace what is not to be replaced; called before the work."""
    if path.exists() and source.exists() and path.samefile(source):
        raise DataError(f"{path} is the file the prompts are read from; give another name for the answers.")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the name of a file.")
    if path.is_symlink():
        raise DataError(f"{path} is a link; give the name of a file.")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is a device or a pipe; leave out --output and send stdout there: > {path}")
    if not path.parent.is_dir():
        raise DataError(f"the folder {path.parent} does not exist; make it first, or give another name.")
    if path.exists() and not force:
        raise DataError(f"{path} exists; give another name, or --force to replace it.")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"the folder {path.parent} cannot be written; give another name.")


def _plain_row(line: str, where: str) -> PromptRow:
    return PromptRow(line, {"prompt": line}, where)


def _json_row(line: str, where: str) -> PromptRow:
    try:
        row = json.loads(line, parse_constant=lambda name: _refuse(where, f"{name} is no JSON"))
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        _refuse(where, f"{error.msg} (column {error.colno})")
    except UnicodeEncodeError:
        _refuse(where, "an escape such as \\ud800 names half of a character pair")
    except ValueError as error:  # a whole number of more digits than Python reads
        _refuse(where, str(error))
    except RecursionError:
        _refuse(where, "the brackets are nested too deeply")
    if isinstance(row, str):
        return _plain_row(row, where)
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        _refuse(where, "it must hold either a prompt or messages")
    taken = [name for name in _WRITTEN if name in row]
    if taken:
        _refuse(where, f"its column {taken[0]!r} would be replaced by the answer's; rename the column")
    if "prompt" in row:
        return PromptRow(_text(row["prompt"], "prompt", where), row, where)
    return PromptRow(_messages(row["messages"], where), row, where)


def _text(value: object, name: str, where: str) -> str:
    return value if isinstance(value, str) else _refuse(where, f"{name} must be a text, not {json.dumps(value)[:40]}")


def _messages(value: object, where: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        _refuse(where, "messages must be a list of at least one message")
    for message in value:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            _refuse(where, "each message needs a role and a content")
        _text(message["role"], "role", where)
        _text(message["content"], "content", where)
    return value


def _refuse(where: str, problem: str) -> NoReturn:
    raise DataError(f"{where}: {problem}. A line is {_ACCEPTED}.")
