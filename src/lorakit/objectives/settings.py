"""Settings of the section `objective`: one model an objective, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Objective(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class CausalLMSettings(_Objective):
    """Learn the next token (Radford et al. 2018, "Improving Language Understanding", equation 1)."""

    name: Literal["causal_lm"] = "causal_lm"
    train_on_prompt: bool = False
    """Whether prompt tokens are labels too; off: answers are learned, prompts are only read."""
    separator: str = "\n"
    """Text put between a prompt and its answer in `prompt_completion` rows; saved with the adapter."""


class MaskedLMSettings(_Objective):
    """Learn hidden words from both sides (Devlin et al. 2019, arXiv:1810.04805, section 3.1)."""

    name: Literal["masked_lm"] = "masked_lm"
    probability: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are predicted: 80 % of these are masked, 10 % exchanged, 10 % left as they are."""
    whole_words: bool = False
    """Whether all pieces of a word are hidden together."""
    nsp: bool = False
    """Whether to learn too if the second of two pieces of text follows the first in its document."""


class SpanCorruptionSettings(_Objective):
    """Learn spans of tokens that were cut out (Raffel et al. 2020, arXiv:1910.10683, section 3.1.4)."""

    name: Literal["span_corruption"] = "span_corruption"
    noise_density: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are cut out."""
    mean_span: float = Field(default=3.0, ge=1)
    """Mean length of a span, in tokens."""


class Seq2SeqLMSettings(_Objective):
    """Learn to write a target text from a source text (Raffel et al. 2020, arXiv:1910.10683, section 2.4)."""

    name: Literal["seq2seq_lm"] = "seq2seq_lm"
    prefix: str = ""
    """Text put before every source, such as `translate Korean to English: `; saved with the adapter."""


class SequenceClassificationSettings(_Objective):
    """Learn labels or a score of a text, or of a pair of texts (Devlin et al. 2019, arXiv:1810.04805, section 4.1)."""

    name: Literal["sequence_classification"] = "sequence_classification"
    labels: list[str] | None = None
    """Names of all labels, in order; left out: those of the training rows, sorted."""
    problem: Literal["single_label", "multi_label", "regression"] | None = None
    """One label a text, several, or a number; left out: by the column, `label`, `labels` or `score`."""
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """Weight of each label in the loss; `balanced`: the rarer, the heavier; left out: all alike."""
    pairs: bool | None = None
    """Whether two texts are compared; left out: whether the training rows have `text_pair`."""


class TokenClassificationSettings(_Objective):
    """Learn a tag of each word (Devlin et al. 2019, arXiv:1810.04805, section 5.3)."""

    name: Literal["token_classification"] = "token_classification"
    labels: list[str] | None = None
    """Names of all tags, in order; left out: those of the training rows, sorted."""
    broken_tags: Literal["error", "repair"] = "error"
    """What to do with an inside tag that nothing begins: stop, or let it begin an entity, and count."""


class QuestionAnsweringSettings(_Objective):
    """Learn where in a context an answer begins and ends (Devlin et al. 2019, arXiv:1810.04805, section 4.2)."""

    name: Literal["question_answering"] = "question_answering"
    stride: int = Field(default=128, ge=1)
    """Tokens that two neighbouring windows of a long context share."""
    max_answer: int = Field(default=30, ge=1)
    """Longest answer in tokens that a prediction may give."""


ObjectiveSettings = Annotated[
    CausalLMSettings
    | MaskedLMSettings
    | SpanCorruptionSettings
    | Seq2SeqLMSettings
    | SequenceClassificationSettings
    | TokenClassificationSettings
    | QuestionAnsweringSettings,
    Field(discriminator="name"),
]

SETTINGS: tuple[type[_Objective], ...] = (
    CausalLMSettings,
    MaskedLMSettings,
    SpanCorruptionSettings,
    Seq2SeqLMSettings,
    SequenceClassificationSettings,
    TokenClassificationSettings,
    QuestionAnsweringSettings,
)


def default(name: str) -> _Objective:
    """Return the settings of an objective with nothing given."""
    return next(model() for model in SETTINGS if model.model_fields["name"].default == name)
