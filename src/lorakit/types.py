"""What siblings hand to each other. Free of torch at run time, so that it costs nothing to import.

Shape suffixes used in the whole project: B rows of a batch, T positions, L labelled positions, V vocabulary, D hidden
width, O output features, I input features, R rank, S segments of a packed row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read: text stays text, nothing is coerced."""

    fields: Mapping[str, Any]
    """Values by column name; after `data.formats.canonical`, by role (``prompt``, ``completion``, ...)."""
    source: str
    """File name (never a full path) or ``hf://`` name the row came from."""
    line: int
    """Line in that file, from 1; for Parquet and the Hub the row number, from 1."""

    @property
    def where(self) -> str:
        """Return ``rows.csv line 7``, for messages."""
        return f"{self.source} line {self.line}"


FormatName = Literal["text", "prompt_completion", "chat"]


@dataclass(frozen=True, slots=True)
class Format:
    """What the columns of the rows mean."""

    name: FormatName
    """``text``: documents. ``prompt_completion``: a question and its answer. ``chat``: a list of messages."""
    columns: Mapping[str, tuple[str, ...]]
    """Role -> the file's columns that fill it; ``{"prompt": ("instruction", "input"), "completion": ("output",)}``."""
    unused: tuple[str, ...] = ()
    """Columns of the file that nothing reads."""


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How a prompt was framed in training; saved with the adapter, so that generation frames it the same way."""

    format: FormatName = "text"
    separator: str = ""
    """Text between the prompt and its answer; part of the prompt, never learned."""
    chat_template: str | None = None
    """Jinja template of a ``chat`` format."""
    begins_document: bool = False
    """Whether a ``text`` prompt begins a document: the start token stands before it, as it did in training."""


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded row, without padding."""

    ids: np.ndarray
    """Token ids, shape (T,), int32."""
    labels: np.ndarray
    """The token to be learned at each position or -100, shape (T,), int32; not shifted (`labels[t]` is `ids[t]`)."""
    row: int
    """Number of the row in reading order, from 0: what random masks and error messages refer to."""
    where: str = ""
    """Origin of the row, for messages."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch as the model takes it: one flat packed row, or padded rows of similar length."""

    inputs: Mapping[str, Tensor]
    """Arguments of the model's forward: ``input_ids`` (1, T) or (B, T), ``position_ids``, ``attention_mask``."""
    positions_L: Tensor
    """Flat indices, over B * T, of the positions whose next token is learned; shape (L,), int64."""
    targets_L: Tensor
    """The tokens to be learned there, shape (L,), int64."""
    lengths: tuple[int, ...]
    """Length of each segment of a packed row; empty for padded rows."""
    rows: tuple[int, ...]
    """Row numbers, for messages."""
    tokens: int
    """Real (not padding) tokens."""


class Objective(Protocol):
    """WHAT is learned: columns, encoding, collation, loss sums and their counts."""

    name: str

    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """Turn canonical rows into examples; raises DataError naming the row."""

    def collate(self, examples: Sequence[Example], packed: bool) -> Batch:
        """Lay examples side by side, flat (`packed`) or padded at the right."""

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return, for each named term of the loss, over how many predictions it sums."""

    def loss_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return each term's loss summed, not averaged, over those predictions; shape () each, in nats."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """What a method made of a model: which weights learn."""

    names: tuple[str, ...]
    """Names of the trained tensors, as in `model.named_parameters()`."""
    trained: int
    """Number of weights that learn."""
    total: int
    """Number of weights of the model, a tied weight counted once, adapters included."""
    summary: tuple[tuple[str, int, int], ...]
    """Rows of the table printed before the first step: kind of layer, tensors, weights."""
    notes: tuple[str, ...] = ()
    """What the user should know: an untied head and its cost, a target that matched two kinds of layers."""


@dataclass(slots=True)
class DataReport:
    """What was found in the rows; every count that is not the plain case is a line on the screen."""

    rows: int = 0
    tokens: int = 0
    """Tokens of all examples, prompts included."""
    learned: int = 0
    """Tokens that are labels."""
    longest: int = 0
    longest_where: str = ""
    duplicates: int = 0
    """Rows equal to an earlier one in every role."""
    leaked: int = 0
    """Evaluation rows that also stand in the training rows."""
    notes: list[str] = field(default_factory=list)
    """Encoding, skipped, dropped and truncated rows, unused columns: a sentence each."""
