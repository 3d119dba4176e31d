"""Learn one label of a text or of a pair of texts, several labels, or a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lorakit.data.framing import Framed, FramedEncoder, cut, padding_id
from lorakit.data.readers.faults import counted
from lorakit.errors import DataError
from lorakit.objectives import class_labels
from lorakit.objectives.base import Shared, hits, laid, read_by_model
from lorakit.objectives.predicting import scored
from lorakit.objectives.refusals import TRUNCATE_OR_DROP, refuse_longer
from lorakit.types import Batch, Example, Head, Job, Row, TooLong

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class SequenceClassification(Shared):
    """Scores of a whole text (Devlin et al. 2019, arXiv:1810.04805, section 4.1).

    Where the scores stand is the model's own: at the first token of an encoder, the last real one of a decoder, the
    end-of-sequence token of an encoder-decoder.
    """

    job: Job
    counted: Counter[str] = field(default_factory=Counter)
    """How many rows each `too_long` policy has met, over all calls of `encode`."""

    name = "sequence_classification"

    problem_of = staticmethod(class_labels.problem_of)
    labels_of = staticmethod(class_labels.labels_of)
    resolved = staticmethod(class_labels.resolved)

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the objective for `job`, whose settings `resolved` has filled."""
        return cls(job)

    def __post_init__(self) -> None:
        """Read labels and weights from the job."""
        settings = self.job.settings
        self.problem = self.job.problem or class_labels.PROBLEMS[settings.problem or "single_label"]
        regression = self.problem == "regression"
        self.labels = self.job.labels or ((class_labels.SCORE,) if regression else tuple(settings.labels or ()))
        self.encoder = FramedEncoder(self.job.tokenizer)
        self.padding = padding_id(self.job.tokenizer)
        self._numbers = {label: number for number, label in enumerate(self.labels)}
        weights = settings.class_weights
        self._weights = None if weights is None else [float(weights[label]) for label in self.labels]
        self._segments = self.job.config.get("type_vocab_size", 0) > 1

    @property
    def head(self) -> Head:
        """Scores of the labels, in their order."""
        return Head("sequence_classification", self.labels, self.problem)

    @property
    def notes(self) -> list[str]:
        """Counted lines about rows that were cut or left out."""
        sentences = {"drop": "left out", "truncate": "cut at the end"}
        return [
            f"{counted(self.counted[policy], 'row')} longer than {self.job.max_length:,} tokens: {sentence}"
            for policy, sentence in sentences.items()
            if self.counted[policy]
        ]

    def encode(self, rows: Sequence[Row], first: int = 0) -> list[Example]:
        """Turn rows with labels into examples.

        Args:
            rows: Canonical rows {text, text_pair where two are compared, and label, labels or score}.
            first: Number of the first row in reading order.

        Raises:
            DataError: A text is empty, a label unknown or missing, or rows are too long and `too_long` says so.
        """
        return self._examples(rows, [self._target(row) for row in rows], first, self.job.too_long)

    def learned(self, example: Example) -> int:
        """Return 1: an example is one prediction."""
        return 1

    def collate(self, examples: Sequence[Example], packed: bool = False, epoch: int | None = None) -> Batch:
        """Lay texts end to end in one row (`packed`), or one below the other, padded at the right.

        ``labels_B`` are class numbers, ``labels_BO`` float.
        """
        import torch

        ids, first_position = [example.ids for example in examples], self.job.family.first_position
        inputs, _ = read_by_model(ids, packed, self.padding, first_position)
        segments = [example.segments for example in examples if example.segments is not None]
        if segments:
            inputs["token_type_ids"] = torch.from_numpy(laid(segments, packed)[0])
        labels = torch.from_numpy(np.stack([example.labels for example in examples]))
        single = self.problem == "single_label_classification"
        return Batch(
            inputs=inputs,
            targets={"labels_B": labels[:, 0].long()} if single else {"labels_BO": labels},
            lengths=tuple(map(len, ids)) if packed else (),
            rows=tuple(example.row for example in examples),
            tokens=sum(len(example) for example in examples),
        )

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return over what the loss is a mean: weights of the labels, terms of all classes, or rows."""
        if self.problem == "single_label_classification":
            labels = batch.targets["labels_B"]
            return {"labels": float(len(labels)) if self._weights is None else float(self._weight(labels).sum())}
        if self.problem == "regression":
            return {"labels": float(len(batch.targets["labels_BO"]))}
        return {"labels": len(batch.targets["labels_BO"]) * float(sum(self._weights or [1.0] * len(self.labels)))}

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``logits_BO``, the scores of the labels, float32."""
        from lorakit.fast.pooling import pooled
        from lorakit.fast.shapes import rounded_row

        arguments = {} if self.job.family.kind == "encoder" else {"use_cache": False}
        if not batch.lengths:
            return {"logits_BO": model(**batch.inputs, **arguments).logits.float()}
        with pooled(model, self.job.family, batch.lengths) as scored:
            output = model(**rounded_row(batch.inputs, batch.lengths), **arguments)
        return {"logits_BO": scored(output).float()}

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the loss summed over rows, shape (), float32.

        Cross-entropy in nats of one label; binary cross-entropy in nats of several, summed over the classes too;
        squared error of a score.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

        logits_BO = outputs["logits_BO"]
        weights_O = None if self._weights is None else logits_BO.new_tensor(self._weights)
        if self.problem == "single_label_classification":
            loss = cross_entropy(logits_BO, batch.targets["labels_B"], weight=weights_O, reduction="sum")
        elif self.problem == "regression":
            loss = mse_loss(logits_BO, batch.targets["labels_BO"], reduction="sum")
        else:
            labels_BO = batch.targets["labels_BO"]
            loss = binary_cross_entropy_with_logits(logits_BO, labels_BO, weight=weights_O, reduction="sum")
        return {"labels": loss}

    def tallies(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, tuple[float, float]]:
        """Return how many rows have the right label (``accuracy``), or exactly the right ones (``exact``)."""
        logits_BO = outputs["logits_BO"]
        if self.problem == "single_label_classification":
            return {"accuracy": hits(logits_BO, batch.targets["labels_B"])}
        if self.problem == "regression":
            return {}
        right_B = ((logits_BO >= 0) == (batch.targets["labels_BO"] > 0.5)).all(-1)
        return {"exact": (float(right_B.sum()), float(len(right_B)))}

    def predict(self, model: nn.Module, rows: Sequence[Row], top: int = 5, tokens: int = 2048) -> list[dict[str, Any]]:
        """Return what the model says of each row; rows need no labels.

        Args:
            model: In eval mode, with this objective's head.
            rows: Canonical rows with ``text``, and ``text_pair`` where it was trained on pairs.
            top: How many labels are listed with their probabilities.
            tokens: Tokens computed at once, padding included.

        Returns:
            A mapping a row: {label, probability, top: [{label, probability}, ...]}; of several labels {labels, top},
            where `labels` are those of probability 0.5 and more; of a regression {score}.

        Raises:
            DataError: A text is empty, or longer than the model can read and `too_long` does not say truncate.
        """
        # Nothing reads these labels, and a row that is left out would have no prediction.
        policy: TooLong = "truncate" if self.job.too_long == "truncate" else "error"
        examples = self._examples(rows, [np.zeros(1, dtype=np.int32)] * len(rows), 0, policy)
        found: list[dict[str, Any]] = [{} for _ in rows]
        for group, _, outputs in scored(self, model, examples, tokens):
            for example, scores_O in zip(group, outputs["logits_BO"], strict=True):
                found[example.row] = self._prediction(scores_O, top)
        return found

    def _prediction(self, scores_O: Tensor, top: int) -> dict[str, Any]:
        if self.problem == "regression":
            return {"score": float(scores_O[0])}
        single = self.problem == "single_label_classification"
        shares_O = scores_O.softmax(-1) if single else scores_O.sigmoid()
        order = shares_O.argsort(descending=True, stable=True).tolist()
        listed = [{"label": self.labels[number], "probability": float(shares_O[number])} for number in order]
        if single:
            return {**listed[0], "top": listed[:top]}
        likely = [label for label, share in zip(self.labels, shares_O.tolist(), strict=True) if share >= 0.5]
        return {"labels": likely, "top": listed[:top]}

    def _examples(
        self, rows: Sequence[Row], targets: Sequence[np.ndarray], first: int, policy: TooLong
    ) -> list[Example]:
        examples: list[Example] = []
        refused: list[str] = []
        for number, (row, framed, target) in enumerate(
            zip(rows, self._framed(rows), targets, strict=True), start=first
        ):
            if len(framed) > self.job.max_length:
                if policy not in ("drop", "truncate"):
                    refused.append(f"{row.where} ({len(framed):,} tokens)")
                    continue
                self.counted[policy] += 1
                if policy == "drop":
                    continue
                framed = cut(framed, self.job.max_length)
            pair = self._segments and "text_pair" in row.fields
            examples.append(Example(framed.ids, target, number, row.where, segments=framed.segments if pair else None))
        refuse_longer(refused, self.job.max_length, self.job.positions, TRUNCATE_OR_DROP)
        return examples

    def _framed(self, rows: Sequence[Row]) -> list[Framed]:
        """Frame the texts of rows; what would end a decoder's text with the padding id is cut off."""
        paired = class_labels.paired(rows)
        if rows and self.job.settings.pairs not in (None, paired):
            learned, given = ("pairs of texts", "one") if self.job.settings.pairs else ("single texts", "two")
            raise DataError(
                f"{rows[0].where}: this model learned {learned}, and the row has {given}. Give text"
                f"{' and text_pair (lorakit predict: --pair)' if self.job.settings.pairs else ' alone'}."
            )
        for role in ("text", "text_pair") if paired else ("text",):
            for row in rows:
                if not row.fields.get(role):
                    raise DataError(
                        f"{row.where}: {role} is empty, so there is nothing to read. Fill or remove the row."
                    )
        texts = [row.fields["text"] for row in rows]
        second = [row.fields["text_pair"] for row in rows] if paired else []
        framed = (
            self.encoder.pairs(texts, second, placed=False) if paired else self.encoder.singles(texts, placed=False)
        )
        for row, each in zip(rows, framed, strict=True):
            if not each.of_text.any():
                raise DataError(f"{row.where}: the text has no character that the model can read. Remove the row.")
        if self.job.family.kind != "decoder":
            return framed
        return [each.chosen(np.arange(len(each)) <= np.flatnonzero(each.ids != self.padding)[-1]) for each in framed]

    def _target(self, row: Row) -> np.ndarray:
        if self.problem == "regression":
            return np.array([class_labels.number_in(row)], dtype=np.float32)
        numbers = class_labels.numbers_of(row, self._numbers)
        if self.problem == "multi_label_classification":
            return np.isin(np.arange(len(self.labels)), numbers).astype(np.float32)
        if len(numbers) != 1:
            raise DataError(
                f"{row.where}: it has {len(numbers)} labels, but one label a text is learned. Mend or remove the row, "
                f"or learn several: --set objective.problem=multi_label."
            )
        return np.array(numbers, dtype=np.int32)

    def _weight(self, labels_B: Tensor) -> Tensor:
        import torch

        return torch.tensor(self._weights, dtype=torch.float64)[labels_B.cpu()]
