"""``python -m lorakit``, and what ``accelerate launch -m lorakit`` starts: the one place where errors are printed."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """Run the command line and leave with its exit code; no traceback for a user's mistake."""
    # Threads that wait for each other by spinning lose up to ten times where another process wants the same cores;
    # libgomp reads this when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from lorakit.cli.main import app
    from lorakit.cli.screen import print_error
    from lorakit.errors import LorakitError

    try:
        app()
    except LorakitError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) left; what it wanted has been written.
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    run()
