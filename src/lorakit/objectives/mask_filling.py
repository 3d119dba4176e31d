"""What a model of hidden words says of a text with masks in it, or of two texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from lorakit.data.framing import Framed, FramedEncoder
from lorakit.errors import DataError
from lorakit.objectives.predicting import scored
from lorakit.objectives.settings import MaskedLMSettings
from lorakit.types import Batch, Example, Job, Objective, Row

if TYPE_CHECKING:
    from torch import Tensor, nn

SPELLING = "[MASK]"
"""How a mask may be written for every model, whatever its own mask token is."""


class Reader(Protocol):
    """What is asked of the objective: how its model reads."""

    job: Job
    settings: MaskedLMSettings
    encoder: FramedEncoder
    ordinary_ids: np.ndarray

    def laid(self, examples: Sequence[Example], drawn: Sequence[tuple[np.ndarray, np.ndarray]], packed: bool) -> Batch:
        """Lay examples side by side, with the ids and the masks of each."""

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the raw scores of a batch."""


@dataclass(frozen=True, slots=True)
class Question:
    """One row to be answered."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Where masks stand in the text, in characters; empty of a pair."""
    example: Example
    positions: np.ndarray
    """Where masks stand in the tokens, shape (M,), int64."""


@dataclass(frozen=True, slots=True)
class MaskFilling:
    """Answers rows with the objective that its model was trained for."""

    objective: Reader
    rows: Sequence[Row]
    top: int
    """How many words are listed for each mask, at least 1."""
    questions: list[Question] = field(default_factory=list)

    def answers(self, model: nn.Module, tokens: int) -> list[dict[str, Any]]:
        """Return an answer for each row, in order; see `MaskedLM.predict`."""
        self.questions.extend(self._question(row, number) for number, row in enumerate(self.rows))
        examples = [question.example for question in self.questions]
        found: list[dict[str, Any]] = [{} for _ in self.rows]
        # All that is asked of an objective there is to lay examples side by side and to score them.
        for group, _, outputs in scored(cast(Objective, self), model, examples, tokens):
            asked = [self.questions[example.row] for example in group]
            scores = outputs["mlm_LV"].split([len(question.spans) for question in asked])
            for place, (question, scores_MV) in enumerate(zip(asked, scores, strict=True)):
                found[question.example.row] = (
                    self._filled(question, scores_MV) if question.spans else _follows(outputs["nsp_B2"][place])
                )
        return found

    def collate(self, examples: Sequence[Example], packed: bool, epoch: int | None = None) -> Batch:
        """Lay examples side by side with the masks that people wrote."""
        drawn = [(example.ids, self.questions[example.row].positions) for example in examples]
        return self.objective.laid(examples, drawn, packed)

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the objective's scores."""
        return self.objective.outputs(model, batch)

    def _question(self, row: Row, number: int) -> Question:
        text, second = row.fields["text"], row.fields.get("text_pair")
        spans: tuple[tuple[int, int], ...] = ()
        if second is not None:
            framed = self._pair(row, text, second)
        else:
            mask = str(self.objective.job.tokenizer.mask_token)
            written = re.compile(f"{re.escape(mask)}|{re.escape(SPELLING)}")
            spans = tuple(found.span() for found in written.finditer(text))
            framed = self.objective.encoder.singles([written.sub(lambda _: mask, text)], keep=(mask,))[0]
        longest = self.objective.job.max_length
        if len(framed) > longest:
            raise DataError(
                f"{row.where}: {len(framed):,} tokens are more than the {longest:,} that the model reads. Give a "
                "shorter text."
            )
        if second is None and not spans:
            raise DataError(
                f"{row.where}: no word is hidden in {text[:60]!r}. Write {SPELLING} in the place of a word: "
                f"Paris is the {SPELLING} of France."
            )
        is_mask = framed.ids == self.objective.job.tokenizer.mask_token_id
        positions = np.flatnonzero(is_mask & framed.of_text) if spans else np.zeros(0, dtype=np.int64)
        example = Example(framed.ids, np.zeros(1, dtype=np.int32), number, row.where, segments=framed.segments)
        return Question(text, spans, example, positions)

    def _pair(self, row: Row, text: str, second: str) -> Framed:
        if not self.objective.settings.nsp:
            raise DataError(
                f"{row.where}: this model was not trained to tell if a second text follows a first (objective.nsp), "
                f"so it cannot answer for a pair. Give one text with {SPELLING} in it."
            )
        return self.objective.encoder.pairs([text], [second])[0]

    def _filled(self, question: Question, scores_MV: Tensor) -> dict[str, Any]:
        """Return the words of each mask, and the text with the best ones in it."""
        probabilities_MV = scores_MV.softmax(dim=-1)
        # A control token is no word; its share stays its own.
        ordinary_ids = self.objective.ordinary_ids
        best = probabilities_MV[:, ordinary_ids].topk(min(self.top, len(ordinary_ids)))
        masks, filled, done = [], "", 0
        for (start, end), values, places in zip(
            question.spans, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            words = [
                {"word": self._word(ordinary_ids[place]), "probability": value}
                for place, value in zip(places, values, strict=True)
            ]
            masks.append({"start": start, "end": end, "words": words})
            filled += f"{question.text[done:start]}{words[0]['word']}"
            done = end
        return {"text": filled + question.text[done:], "masks": masks}

    def _word(self, token: int) -> str:
        """Return a token as people write it, without marks of word pieces and spaces."""
        tokenizer = self.objective.job.tokenizer
        # Not every kind of vocabulary marks pieces; a byte-level one may hold "##" as a word.
        mark = getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None) or ""
        return str(tokenizer.decode([int(token)])).strip().removeprefix(mark)


def _follows(scores_2: Tensor) -> dict[str, Any]:
    """Return whether the second text follows the first: score 0 says that it does, 1 that it is a random one."""
    probability = scores_2.softmax(dim=-1)[0].item()
    return {"is_next": probability >= 0.5, "probability": probability}
