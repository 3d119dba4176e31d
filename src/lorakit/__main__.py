"""``python -m lorakit``, and what ``accelerate launch -m lorakit`` starts: the one place where errors are printed."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from lorakit.fast import waiting

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = {
    errno.EACCES: "permission denied. Give yourself the right to it, or take a copy that is yours.",
    errno.EPERM: "permission denied. Give yourself the right to it, or take a copy that is yours.",
    errno.EROFS: "nothing can be written there. Give another place.",
    errno.ENAMETOOLONG: "longer than a name of a file or folder can be, and nothing else goes by it.",
}
"""What the system says of a file that no command can do anything about."""
_CTRL_C = 130
"""What Typer makes of a KeyboardInterrupt."""


def run() -> None:
    """Run the command line and leave with its exit code; no traceback for a user's mistake."""
    try:
        _check_streams()
        waiting.choose(os.environ)
        from lorakit.cli.main import app

        left_with = app(standalone_mode=False)
        if left_with == _CTRL_C:
            raise KeyboardInterrupt
        sys.exit(left_with)
    except BaseException as error:
        # All that is left is to tell: who presses Ctrl-C again gets the same line, and no traceback of its telling.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = _explain(error)
        # From here on it ends the program at once, should something hang at its end.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if code is None and not isinstance(error, SystemExit):
            raise
        leave(error.code if isinstance(error, SystemExit) and code is None else code)


def leave(code: int | str | None) -> None:
    """End the program; as one of several processes without Python's own end.

    Threads of torch that want Python's lock while it ends are unwound through C++, which aborts: a finished run would
    count as failed about once in ten times.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not isinstance(code, str):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    # At its end Python searches everything for cycles: a fifth of the time of a page of help.
    gc.freeze()
    sys.exit(code)


def _check_streams() -> None:
    """Stand in for a closed stream (`<&-`), but refuse a closed stdout: the next file would take its number."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    closed = sys.stdout is None
    if closed:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if closed:
        from lorakit.errors import LorakitError

        raise LorakitError("stdout is closed; send it to a file, or to /dev/null where it is not wanted.")


def _explain(error: BaseException) -> int | None:
    """Say what went wrong; returns the exit code, or None for what is no user's mistake."""
    import typer

    from lorakit.cli.screen import print_error, say
    from lorakit.errors import Interrupted, LorakitError

    if isinstance(error, Interrupted):
        say(str(error))
        return error.exit_code
    # An import that Ctrl-C cuts short can surface as an ImportError, and Typer turns Ctrl-C into an exit.
    if any(isinstance(cause, KeyboardInterrupt) for cause in _causes(error)):
        say("stopped; nothing was written.")
        return 130
    if isinstance(error, LorakitError):
        print_error(error)
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None and error.errno in _REFUSED:
        print_error(LorakitError(f"{error.filename}: {_REFUSED[error.errno]}"))
        return 1
    # What Typer finds wrong with a command line; the module of this class differs between versions.
    if isinstance(error, typer.BadParameter.__mro__[1]):
        _print_usage(error)
        return 2
    for cause in _causes(error):
        if isinstance(cause, BrokenPipeError):
            # The reader of a pipe (`| head`) left; what it wanted has been written.
            _abandon_stdout()
            return 0
        if isinstance(cause, OSError) and cause.errno in _FULL:
            _abandon_stdout()
            where = f": {cause.filename}" if cause.filename else ""
            print_error(LorakitError(f"the disk is full{where}; what was being written is not whole. Make room."))
            return 1
    return None


def _print_usage(error: Any) -> None:
    """Print what is wrong with a command line; where it has no words, Typer has shown the page of help already."""
    from lorakit.cli.screen import print_error
    from lorakit.errors import LorakitError

    if told := error.format_message().strip():
        where = f" {error.ctx.command_path} --help says what can be given." if error.ctx is not None else ""
        print_error(LorakitError(f"{told if told.endswith(('.', '?')) else told + '.'}{where}"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, what it was raised from, and so on."""
    step: BaseException | None = error
    seen: set[int] = set()
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__


def _abandon_stdout() -> None:
    """Throw away what is still buffered: Python would try once more to write it, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
    os.close(nowhere)


if __name__ == "__main__":
    run()
