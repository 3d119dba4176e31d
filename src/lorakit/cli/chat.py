"""`lorakit chat`: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.cli import decoding_options as options
from lorakit.cli import screen
from lorakit.cli.piped import as_text
from lorakit.cli.statistics import Statistics
from lorakit.errors import DataError, LorakitError, nearest

if TYPE_CHECKING:
    from lorakit.workflows.chatting import Conversation

_HELP = """\
/reset         forget the conversation
/system TEXT   what the model is told before all turns; no TEXT: nothing
/save FILE     write the turns as JSONL that can be trained on
/help          these lines
/quit          leave; Ctrl-D does too
//…            say a text that begins with /
Ctrl-C stops an answer."""

_ALONE = ("/help", "/quit", "/reset")
"""Commands that take nothing behind them."""


def chat(
    target: options.Target,
    max_new_tokens: options.MaxNewTokens = 256,
    stop: options.Stop = None,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    seed: options.Seed = 0,
    raw: options.Raw = False,
    base: options.Base = None,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    speculate: options.Speculate = None,
    fast: options.Fast = True,
    quiet: options.Quiet = False,
) -> None:
    """Talk with a base model, or with what was trained on one.

    A model trained on conversations remembers the turns; any other reads each alone.
    When it can read no more, the oldest turns are dropped, and you are told.
    Answers go to stdout, everything else to stderr. /help lists what else you can type.

    Example: lorakit chat runs/assistant
    """
    from lorakit.generation.settings import DecodingSettings

    settings = DecodingSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop or [],
    )
    from lorakit.workflows.speeding import check_speculate

    check_speculate(speculate, settings)
    from lorakit.workflows.chatting import Conversation
    from lorakit.workflows.generating import open_writer

    how: dict[str, Any] = {"raw": raw, "fast": fast, "speculate": speculate}
    writer = open_writer(target, base=base, revision=revision, device=device, dtype=dtype, **how)
    for note in () if quiet else writer.target.notes:
        screen.say(note, wrap=True)
    if not writer.chats:
        screen.say(
            "This model was not trained on conversations: each turn is a new prompt, and nothing is remembered.",
            wrap=True,
        )
    if not quiet:
        screen.say("/help lists the commands; Ctrl-D leaves.")
    _talk(Conversation(writer, settings), quiet)


def _talk(conversation: Conversation, quiet: bool) -> None:
    while True:
        try:
            line = _read_line()
        except EOFError:
            return
        except KeyboardInterrupt:
            screen.say("\n/quit or Ctrl-D leaves.")
            continue
        except DataError as error:
            screen.print_error(error)
            continue
        try:
            if line.startswith("/") and not line.startswith("//"):
                command, _, rest = line.partition(" ")
                command, rest = command.strip().lower(), rest.strip()
                if rest and command in _ALONE:
                    raise LorakitError(f"{command} stands alone; leave out {rest!r}.")
                if command == "/quit":
                    return
                _obey(conversation, command, rest)
            elif line.strip():
                _answer(conversation, line.removeprefix("/"), quiet)
        except LorakitError as error:
            screen.print_error(error)


def _read_line() -> str:
    """Return the next line without its newline.

    Raises:
        EOFError: The input has ended.
        DataError: The line was piped in and is not UTF-8.
    """
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # not everywhere
            import readline  # noqa: F401  # gives `input` a history and editing keys
        return input("> ")
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    return as_text(line, "the line that was piped in").rstrip("\r\n")


def _obey(conversation: Conversation, command: str, rest: str) -> None:
    if command == "/help":
        screen.say(_HELP)
    elif command == "/reset":
        conversation.reset()
        screen.say("The conversation is forgotten.")
    elif command == "/system":
        conversation.tell_system(rest)
        screen.say("The model is told so before all turns." if rest else "The model is told nothing before the turns.")
    elif command == "/save":
        if not rest:
            raise LorakitError("/save needs the name of a file.")
        conversation.save(Path(rest).expanduser())
        screen.say(f"saved to {rest}")
    else:
        known = ("/help", "/quit", "/reset", "/save", "/system")
        hint = nearest(command, known) or f"Commands are {', '.join(known)}; //… says a text that begins with /."
        raise LorakitError(f"{command} is no command. {hint}")


def _answer(conversation: Conversation, text: str, quiet: bool) -> None:
    statistics = Statistics(conversation.writer.paths)
    try:
        reply = conversation.ask(text, screen.emit)
    except KeyboardInterrupt:
        screen.emit("\n")
        screen.say("(stopped)")
        return
    screen.emit("\n")
    if reply.dropped:
        turns = "turn was" if reply.dropped == 1 else f"{reply.dropped} turns were"
        screen.say(f"The model can read no more: the oldest {turns} left out from here on.", wrap=True)
    if not quiet:
        screen.say(statistics.line([reply.completion]), style="dim")
