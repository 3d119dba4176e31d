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

    from lorakit.families import Family

TooLong = Literal["error", "drop", "truncate_prompt", "truncate"]
"""What is done with a row that is too long: stop, leave it out, cut its prompt at the start, or its text at the end."""


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


FormatName = Literal["text", "prompt_completion", "chat", "source_target", "labelled", "tagged", "extractive"]

HeadTask = Literal[
    "causal_lm",
    "masked_lm",
    "masked_lm_nsp",
    "seq2seq_lm",
    "sequence_classification",
    "token_classification",
    "question_answering",
]
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]


@dataclass(frozen=True, slots=True)
class Head:
    """Which output stands on a model."""

    task: HeadTask
    """What its scores are about; ``masked_lm_nsp`` scores words and next sentences, as in BERT's own pretraining."""
    labels: tuple[str, ...] = ()
    """Names of the classes or tags, in the order of the scores; empty where the head has none."""
    problem: Problem | None = None
    """Of ``sequence_classification``: how scores become labels."""


@dataclass(frozen=True, slots=True)
class Format:
    """What the columns of the rows mean."""

    name: FormatName
    """What canonical rows hold.

    ``text``: {text}, documents. ``prompt_completion``: {prompt, completion}. ``chat``: {messages}.
    ``source_target``: {source, target}. ``labelled``: {text}, where two texts are compared {text_pair}, and one of
    {label: str}, {labels: list of str}, {score: float}. ``tagged``: {tokens: list of str, tags: list of str}.
    ``extractive``: {question, context, answers: list of {text, start}}, the list empty where there is no answer.
    """
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
    """One encoded row, or a piece of one, without padding."""

    ids: np.ndarray
    """Token ids that the model (of an encoder-decoder: its encoder) reads, shape (T,), int32."""
    labels: np.ndarray
    """What is to be learned, as its objective reads it.

    Next tokens or tags: one a position or -100, shape (T,), int32, not shifted. Two numbers for a span; one for a
    class; one a class, float32, for several classes at once or a score. Of masks, which are drawn at collation, the
    number of each position's word or -100, and before these 1 or 0 for next sentences. Empty where nothing is needed.
    """
    row: int
    """Number of the row in reading order, from 0: what random masks and error messages refer to."""
    where: str = ""
    """Origin of the row, for messages."""
    target: np.ndarray | None = None
    """Ids that the decoder of an encoder-decoder writes, its end included, shape (U,), int32."""
    segments: np.ndarray | None = None
    """Token types of a pair of texts: 0 in the first, 1 in the second, shape (T,), int32."""
    part: int = 0
    """Number of the piece of its row, from 0."""

    def __len__(self) -> int:
        """Tokens that are computed: read and written."""
        return len(self.ids) + (0 if self.target is None else len(self.target))


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch as the model takes it: one flat packed row, or padded rows of similar length."""

    inputs: Mapping[str, Tensor]
    """Arguments of the model's forward: ``input_ids`` (1, T) or (B, T), ``position_ids``, ``attention_mask``."""
    targets: Mapping[str, Tensor]
    """What is learned, by names of the objective's own.

    ``positions_L`` are flat indices, over B * T, of positions whose scores count, and ``targets_L`` what is learned
    there, both int64; ``labels_B`` or ``labels_BO`` the classes of rows, of a packed row those of its segments.
    """
    lengths: tuple[int, ...]
    """Length of each segment of a packed row; empty for padded rows."""
    rows: tuple[int, ...]
    """Row numbers, for messages."""
    tokens: int
    """Real (not padding) tokens."""
    written: tuple[int, ...] = ()
    """Of a packed encoder-decoder the length of each target, as `lengths` are those of the sources."""
    keys: tuple[int, ...] = ()
    """Numbers of its examples where states of frozen blocks are kept (`fast/frontier.py`); empty elsewhere."""


@dataclass(frozen=True, slots=True)
class Job:
    """What an objective is made for: everything it may ask about the model, the rows and the recipe."""

    settings: Any
    """Its own section of the recipe (`objectives/settings.py`)."""
    tokenizer: Any
    family: Family
    config: Mapping[str, Any]
    """config.json of the checkpoint."""
    format: FormatName
    style: PromptStyle
    """How prompts are framed; of causal language models alone."""
    max_length: int
    """Longest example in tokens."""
    positions: int | None = None
    """Most tokens that the model reads at once; None where nothing bounds it."""
    labels: tuple[str, ...] = ()
    """Names of the classes or tags, in the order of the scores."""
    problem: Problem | None = None
    too_long: TooLong = "error"
    label_logits_only: bool = True
    """Whether the fast path of `fast/logits.py` is taken."""
    seed: int = 0


class Objective(Protocol):
    """WHAT is learned: columns, encoding, collation, loss sums and their counts, predictions, metrics."""

    name: str
    steady: bool
    """Whether a model reads an example alike in every epoch; not where words are hidden at random."""
    apart: bool
    """Whether a row becomes the same examples whatever rows stand beside it."""

    @property
    def head(self) -> Head:
        """The output it needs on the model."""

    @property
    def notes(self) -> list[str]:
        """Counted lines about rows that were cut, left out or mended."""

    def encode(self, rows: Sequence[Row], first: int = 0) -> list[Example]:
        """Turn canonical rows into examples; raises DataError naming the row."""

    def learned(self, example: Example) -> int:
        """Return how many predictions of an example are scored, about."""

    def collate(self, examples: Sequence[Example], packed: bool, epoch: int | None = None) -> Batch:
        """Lay examples side by side, flat (`packed`) or padded at the right.

        Random masks are drawn from (seed, epoch, row, part); without an epoch they are always the same ones.
        """

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return, for each named term of the loss, over how many predictions it sums."""

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the raw scores of a batch by name, only those that the loss needs; the first axis numbers them."""

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return each term's loss summed, not averaged, over its predictions; shape () each, in nats, float32."""

    def loss_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return `losses` of `outputs`."""

    def tallies(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, tuple[float, float]]:
        """Return what an evaluation counts besides: name -> (hits, of how many), such as ``nsp_accuracy``."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """What a method made of a model: which weights learn."""

    names: tuple[str, ...]
    """Names of the trained tensors, as in `model.named_parameters()`; of a sum with an added matrix, the base's own."""
    trained: int
    """Number of weights that learn."""
    total: int
    """Number of weights of the model, a tied weight counted once, adapters included."""
    summary: tuple[tuple[str, int, int], ...]
    """Rows of the table printed before the first step: kind of layer, tensors, weights."""
    notes: tuple[str, ...] = ()
    """What the user should know: an untied head and its cost, a target that matched two kinds of layers."""


@dataclass(frozen=True, slots=True)
class ScriptCount:
    """What a tokenizer makes of the text of one script."""

    script: str
    """``Latin``, ``Hangul``, ``jamo`` (Korean letters outside syllables), ``Han``, ``Kana``, …, ``other``."""
    words: int
    characters: int
    """White space left out."""
    tokens: int
    unknown: int
    """Tokens that are the unknown token."""

    @property
    def tokens_per_word(self) -> float:
        """Tokens that a word becomes, at the mean."""
        return self.tokens / max(1, self.words)

    @property
    def tokens_per_character(self) -> float:
        """Tokens that a character becomes, at the mean."""
        return self.tokens / max(1, self.characters)

    @property
    def unknown_share(self) -> float:
        """Part of the tokens that is the unknown token, in [0, 1]."""
        return self.unknown / max(1, self.tokens)


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
    scripts: list[ScriptCount] = field(default_factory=list)
    """What the checkpoint's tokenizer makes of each script, the most frequent first; empty where it was not asked."""
