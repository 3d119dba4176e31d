"""Learn where in a context the answer to a question begins and ends, or that there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lorakit.data.framing import Framed, FramedEncoder, padding_id
from lorakit.data.readers.faults import counted, told
from lorakit.objectives.base import Shared, laid, read_by_model
from lorakit.objectives.predicting import scored
from lorakit.objectives.refusals import cured, refuse
from lorakit.objectives.spans import Spans, covering
from lorakit.objectives.windows import Window, window, windows
from lorakit.types import Batch, Example, Head, Job, Row

if TYPE_CHECKING:
    from torch import Tensor, nn

_NO_ANSWER = np.zeros(2, dtype=np.int32)


@dataclass
class QuestionAnswering(Shared):
    """Cross-entropy of the first and of the last token of the answer (Devlin et al. 2019, sections 4.2 and 4.3).

    Each is a choice among all tokens of a window; where it holds no whole answer, position 0 is right for both. The
    two terms are added, as in the paper, where transformers' own loss is their mean; and padding is never a choice.
    """

    job: Job
    counted: Counter[str] = field(default_factory=Counter)
    """What was cut, widened or left out, over all calls of `encode`."""

    name = "question_answering"
    head = Head("question_answering")

    def __post_init__(self) -> None:
        """Read from the job how pairs are framed."""
        self.encoder = FramedEncoder(self.job.tokenizer)
        self.padding = padding_id(self.job.tokenizer)
        self._segments = (self.job.config.get("type_vocab_size") or 0) > 1

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the objective for `job`."""
        return cls(job)

    @property
    def notes(self) -> list[str]:
        """Counted lines about rows that were cut, widened or left out."""
        sentences = {
            "drop": ("question", f"without room for the answer in {self.job.max_length:,} tokens: left out"),
            "windowed": ("context", "longer than one input: cut into windows"),
            "narrow": (
                "context",
                f"with half a window shared, in place of objective.stride {self.job.settings.stride:,} tokens",
            ),
            "widened": ("answer", "with a border inside a token: widened to whole ones"),
            "unread": ("answer", "without a character that the tokenizer knows: left out"),
        }
        return told(self.counted, sentences)

    def encode(self, rows: Sequence[Row], first: int = 0) -> list[Example]:
        """Turn rows into examples, one a window of the context; of several answers the first is learned.

        Args:
            rows: Canonical rows {question, context, answers}.
            first: Number of the first row in reading order.

        Raises:
            DataError: A question leaves no room for its answer, and `too_long` does not say drop.
        """
        examples: list[Example] = []
        refused: list[Row] = []
        for number, (row, framed) in enumerate(zip(rows, self._framed(rows), strict=True), start=first):
            answer_A = self._answer(framed, row)
            if answer_A is not None and not len(answer_A):
                self.counted["unread"] += 1
            elif self._fits(framed, answer_A):
                examples += self._learned(framed, answer_A, number, row.where)
            elif self.job.too_long == "drop":
                self.counted["drop"] += 1
            else:
                refused.append(row)
        self._refuse(refused)
        return examples

    def collate(self, examples: Sequence[Example], packed: bool, epoch: int | None = None) -> Batch:
        """Lay windows end to end (`packed`), or one below the other, padded at the right.

        ``starts_B`` and ``ends_B`` are positions inside each window.
        """
        import torch

        ids = [example.ids for example in examples]
        inputs, _ = read_by_model(ids, packed, self.padding, self.job.family.first_position)
        segments = [example.segments for example in examples if example.segments is not None]
        if segments:
            inputs["token_type_ids"] = torch.from_numpy(laid(segments, packed)[0])
        starts_B, ends_B = torch.from_numpy(np.stack([example.labels for example in examples])).long().unbind(-1)
        return Batch(
            inputs=inputs,
            targets={"starts_B": starts_B, "ends_B": ends_B},
            lengths=tuple(map(len, ids)) if packed else (),
            rows=tuple(example.row for example in examples),
            tokens=sum(len(example) for example in examples),
        )

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return the number of windows, once for each border."""
        windows_B = float(len(batch.rows))
        return {"start": windows_B, "end": windows_B}

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``starts_BT`` and ``ends_BT``, the scores of each token, float32; minus infinity for padding."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from lorakit.fast.shapes import rounded_row

        arguments = {} if self.job.family.kind == "encoder" else {"use_cache": False}
        inputs = rounded_row(batch.inputs, batch.lengths) if batch.lengths else batch.inputs
        output = model(**inputs, **arguments)
        scores = {"starts_BT": output.start_logits.float(), "ends_BT": output.end_logits.float()}
        if not batch.lengths:
            padding_BT = batch.inputs["attention_mask"] == 0
            return {name: scores_BT.masked_fill(padding_BT, -torch.inf) for name, scores_BT in scores.items()}
        width = sum(batch.lengths)
        return {
            name: pad_sequence(scores_1T[0, :width].split(batch.lengths), batch_first=True, padding_value=-torch.inf)
            for name, scores_1T in scores.items()
        }

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropies in nats of both borders, summed over windows; shape () each, float32."""
        from torch.nn.functional import cross_entropy

        return {
            "start": cross_entropy(outputs["starts_BT"], batch.targets["starts_B"], reduction="sum"),
            "end": cross_entropy(outputs["ends_BT"], batch.targets["ends_B"], reduction="sum"),
        }

    def tallies(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, tuple[float, float]]:
        """Return in how many windows both borders are right."""
        starts_B = outputs["starts_BT"].argmax(-1) == batch.targets["starts_B"]
        ends_B = outputs["ends_BT"].argmax(-1) == batch.targets["ends_B"]
        return {"exact": (float((starts_B & ends_B).sum()), float(len(starts_B)))}

    def predict(self, model: nn.Module, rows: Sequence[Row], top: int = 5, tokens: int = 2048) -> list[dict[str, Any]]:
        """Return the most probable answer to each row's question; rows need no answers.

        A span of the context scores the sum of its start's and its end's score, in the window where that is highest;
        no answer scores the sum at position 0, in the window where it is lowest (Devlin et al. 2019, section 4.3).
        Probabilities are the softmax over all spans of at most `max_answer` tokens and no answer, which is always
        among the choices: a model that never saw a question without answer gives it little.

        Args:
            model: In eval mode, with this objective's head.
            rows: Rows with ``question`` and ``context``.
            top: How many answers are listed with their probabilities.
            tokens: Tokens computed at once, padding included.

        Returns:
            A mapping a row: {answer, start, end, probability, no_answer_probability, top: [{answer, start, end,
            probability}, ...]}. `start` and `end` are characters of the context; no answer is "" without them.

        Raises:
            DataError: A question leaves no room for its context.
        """
        framed_rows = self._framed(rows)
        self._refuse([row for row, framed in zip(rows, framed_rows, strict=True) if not self._fits(framed)])
        cuts = [self._cuts(framed) for framed in framed_rows]
        examples = [
            self._example(one, _NO_ANSWER, number, row.where, part)
            for number, (row, several) in enumerate(zip(rows, cuts, strict=True))
            for part, one in enumerate(several)
        ]
        spans = [Spans.of(int(framed.second.sum()), self.job.settings.max_answer) for framed in framed_rows]
        for group, _, outputs in scored(self, model, examples, tokens):
            starts_BT, ends_BT = outputs["starts_BT"].numpy(), outputs["ends_BT"].numpy()
            for example, starts_T, ends_T in zip(group, starts_BT, ends_BT, strict=True):
                spans[example.row].add(cuts[example.row][example.part], starts_T, ends_T)
        return [
            found.best(row.fields["context"], framed.offsets[framed.second], top)
            for row, framed, found in zip(rows, framed_rows, spans, strict=True)
        ]

    def _framed(self, rows: Sequence[Row]) -> list[Framed]:
        return self.encoder.pairs([row.fields["question"] for row in rows], [row.fields["context"] for row in rows])

    def _answer(self, framed: Framed, row: Row) -> np.ndarray | None:
        """Return the numbers of the context's tokens that the first answer covers; None where there is no answer."""
        if not row.fields["answers"]:
            return None
        answer = row.fields["answers"][0]
        text = answer["text"].strip()
        start = answer["start"] + answer["text"].index(text)
        offsets_T2 = framed.offsets[framed.second]
        covering_A = covering(offsets_T2, start, start + len(text))
        if len(covering_A):
            begin, end = int(offsets_T2[covering_A[0], 0]), int(offsets_T2[covering_A[-1], 1])
            self.counted["widened"] += (begin, end) != (start, start + len(text))
        return covering_A

    def _room(self, framed: Framed) -> int:
        """Return how many tokens of the context one window holds."""
        return self.job.max_length - int((~framed.second).sum())

    def _fits(self, framed: Framed, answer_A: np.ndarray | None = None) -> bool:
        """Whether a window holds the answer, and the longest one that a prediction may give."""
        needed = max(self.job.settings.max_answer, 0 if answer_A is None else len(answer_A))
        return self._room(framed) >= max(1, min(needed, int(framed.second.sum())))

    def _cuts(self, framed: Framed) -> list[Window]:
        return windows(framed, framed.second, self.job.max_length, self.job.settings.stride)

    def _learned(self, framed: Framed, answer_A: np.ndarray | None, number: int, where: str) -> list[Example]:
        """Return the windows of a context, each labelled with the answer where it is whole."""
        cuts = self._cuts(framed)
        self.counted["windowed"] += len(cuts) > 1
        self.counted["narrow"] += len(cuts) > 1 and self.job.settings.stride > self._room(framed) // 2
        if answer_A is None:
            return [self._example(one, _NO_ANSWER, number, where, part) for part, one in enumerate(cuts)]
        borders = np.array([answer_A[0], answer_A[-1]])
        held = [one.begin <= borders[0] and borders[1] < one.end for one in cuts]
        if not any(held):
            # Longer than what windows share, it lies across a border: one window more, with the answer in the middle.
            room, length = self._room(framed), int(framed.second.sum())
            begin = int(np.clip((borders.sum() + 1 - room) // 2, 0, length - room))
            cuts.append(window(framed, framed.second, begin, begin + room))
            held.append(True)
        return [
            self._example(one, borders - one.begin + one.first if whole else _NO_ANSWER, number, where, part)
            for part, (one, whole) in enumerate(zip(cuts, held, strict=True))
        ]

    def _example(self, one: Window, labels: np.ndarray, number: int, where: str, part: int) -> Example:
        segments = one.framed.segments if self._segments else None
        return Example(one.framed.ids, labels.astype(np.int32), number, where, segments=segments, part=part)

    def _refuse(self, rows: Sequence[Row]) -> None:
        refuse(
            [row.where for row in rows],
            f"{counted(len(rows), 'question')} without room for an answer in max_length {self.job.max_length:,} tokens "
            f"(objective.max_answer {self.job.settings.max_answer:,})",
            cured(
                self.job.max_length,
                self.job.positions,
                "shorten the questions",
                "lower objective.max_answer",
                "leave such rows out of training: --set data.too_long=drop",
            ),
        )
