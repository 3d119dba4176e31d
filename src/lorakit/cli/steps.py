"""`--show-steps`: a line for each token, with what the model read and what else it thought of."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from lorakit.cli import screen

if TYPE_CHECKING:
    from lorakit.generation.answers import Step

_READS, _CANDIDATE = 22, 16
"""Widths of columns, in terminal cells."""


class StepTable:
    """Aligned lines; spaces show as ␠, newlines as ␤, tabs as ␉, the end-of-sequence token as <eos>.

    A token that is only a part of a character shows as its number, such as #312.
    """

    SHOWN = 5
    """Candidates of a line; fewer where the terminal is narrow."""

    def __init__(self, tokenizer: Any, eos_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._count = 0
        self._shown = self.SHOWN
        if sys.stdout.isatty():
            room = shutil.get_terminal_size().columns - 6 - _READS - 12
            self._shown = min(self.SHOWN, max(2, room // _CANDIDATE))

    def header(self) -> str:
        """Return the line above the first step."""
        return f"step  {_fit('reads …', _READS)}{_fit('most probable next', _CANDIDATE * self._shown)}takes"

    def line(self, step: Step) -> str:
        """Return the line of the next step."""
        self._count += 1
        reads = _end_of("".join(self.token(number) for number in step.read), _READS - 2)
        candidates = "".join(
            _fit(f"{_fit_end(self.token(number), _CANDIDATE - 7)} {_percent(share)}", _CANDIDATE)
            for number, share in step.candidates[: self._shown]
        )
        return f"{self._count:>4}  {_fit(reads, _READS)}{candidates}{self.token(step.taken)}"

    def token(self, number: int) -> str:
        """Return how a token is shown."""
        if number in self._eos_ids:
            return "<eos>"
        # Behind itself, because some tokenizers drop a space at the beginning of a text.
        once, twice = self._tokenizer.decode([number]), self._tokenizer.decode([number, number])
        text = twice[len(once) :]
        if "\ufffd" in text or not text:
            return f"#{number}"
        return screen.safe(text.replace(" ", "␠").replace("\n", "␤").replace("\t", "␉"))


def _percent(share: float) -> str:
    return "<1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")


def _fit(text: str, cells: int) -> str:
    """Pad `text` to a width in terminal cells: a Korean character takes two."""
    from rich.cells import cell_len

    return text + " " * max(cells - cell_len(text), 1)


def _fit_end(text: str, cells: int) -> str:
    """Cut the end of a token that is too wide."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"


def _end_of(text: str, cells: int) -> str:
    """Return the end of `text` that fits, behind an ellipsis."""
    from rich.cells import cell_len

    shown = text
    while cell_len(shown) > cells - 1:
        shown = shown[1:]
    return f"…{shown}"
