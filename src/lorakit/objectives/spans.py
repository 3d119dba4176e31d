"""Spans of a context: the tokens that an answer covers, and the best of all spans that could be an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lorakit.objectives.windows import Window


def covering(offsets_T2: np.ndarray, start: int, end: int) -> np.ndarray:
    """Return the numbers of the tokens that stand for characters between `start` and `end`."""
    begins_T, ends_T = offsets_T2.T
    return np.flatnonzero((begins_T < end) & (ends_T > start))


@dataclass(slots=True)
class Spans:
    """The scores of all spans of one context, gathered window by window (Devlin et al. 2019, sections 4.2 and 4.3)."""

    scores_TA: np.ndarray
    """Score of the span from token t that is a + 1 tokens long; minus infinity where none may be."""
    no_answer: float = np.inf
    """Score of the answer that there is none: the lowest of the windows'."""

    @classmethod
    def of(cls, length: int, longest: int) -> Self:
        """Return the spans of a context of `length` tokens, at most `longest` tokens long, no window read yet."""
        return cls(np.full((length, longest), -np.inf))

    def add(self, window: Window, starts_T: np.ndarray, ends_T: np.ndarray) -> None:
        """Read the scores that one window gives its tokens, as start and as end; the highest of a span's counts.

        Args:
            window: Where the tokens stand in the context.
            starts_T: Scores by position in the window, padding at its end included.
            ends_T: Likewise.
        """
        self.no_answer = min(self.no_answer, float(starts_T[0]) + float(ends_T[0]))
        own_starts, own_ends = starts_T[window.text].astype(float), ends_T[window.text].astype(float)
        for more in range(min(self.scores_TA.shape[1], len(own_starts))):
            known = self.scores_TA[window.begin : window.end - more, more]
            np.maximum(known, own_starts[: len(own_starts) - more] + own_ends[more:], out=known)

    def best(self, context: str, offsets_T2: np.ndarray, top: int) -> dict[str, Any]:
        """Return the best answer, how probable it is that there is none, and the `top` best answers.

        Spans of the same characters are listed once, at the most probable.

        Args:
            context: What the offsets are about.
            offsets_T2: Begin and end of each token, in characters.
            top: At least 1.
        """
        scores = np.append(self.scores_TA.ravel(), self.no_answer)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        listed: dict[tuple[int | None, int | None], dict[str, Any]] = {}
        for place in np.argsort(-scores, kind="stable"):
            if len(listed) == max(top, 1) or scores[place] == -np.inf:
                break
            start, end = self._characters(int(place), context, offsets_T2)
            # White space alone is no answer.
            if start is None or start != end:
                answer = {"answer": "" if start is None else context[start:end], "start": start, "end": end}
                listed.setdefault((start, end), {**answer, "probability": float(shares[place])})
        answers = list(listed.values())
        return {**answers[0], "no_answer_probability": float(shares[-1]), "top": answers[:top]}

    def _characters(self, place: int, context: str, offsets_T2: np.ndarray) -> tuple[int | None, int | None]:
        """Return where a span begins and ends, white space around it left out; None twice for no answer."""
        if place == self.scores_TA.size:
            return None, None
        first, more = divmod(place, self.scores_TA.shape[1])
        start, end = int(offsets_T2[first, 0]), int(offsets_T2[first + more, 1])
        start = end - len(context[start:end].lstrip())
        return start, start + len(context[start:end].rstrip())
