"""Settings of the section `method`: one model a method, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Method(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class FullSettings(_Method):
    """Train every weight."""

    name: Literal["full"] = "full"


class FreezeSettings(_Method):
    """Keep the lower part as it is and train the rest."""

    name: Literal["freeze"] = "freeze"
    blocks: Annotated[int, Field(ge=0)] | Literal["encoder", "decoder"] | None = None
    """Freeze the embeddings and this many blocks, counted from the input, an encoder's before its decoder's, or one of
    these two as a whole; left out: half of the blocks."""
    patterns: list[str] | None = None
    """Instead: freeze every weight whose name matches one of these shell patterns (`*.wpe.*`)."""


class HeadSettings(_Method):
    """Train the output layer or classifier alone (a linear probe); one tied to the embeddings is copied first."""

    name: Literal["head"] = "head"


class LoraSettings(_Method):
    """Train a low-rank pair beside frozen matrices (Hu et al. 2021, arXiv:2106.09685, section 4.1)."""

    name: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    """Inner size r of the pair."""
    alpha: float = Field(default=16.0, gt=0)
    """Numerator of the scale alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of zeroing an input of the adapter branch."""
    targets: Literal["all-linear"] | list[str] | None = None
    """Which linear layers get a pair: `all-linear`, or ends of module names; left out: the family's own list."""
    last_blocks: int | None = Field(default=None, ge=1)
    """Give pairs to the last blocks alone, this many, of an encoder-decoder its decoder's; left out: to all blocks."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] | None = None
    """Ranks of single layers, by the ends of their names (`{c_fc: 4, h.0.attn.c_attn: 16}`); all others have `rank`."""
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """The same for `alpha`, which stays what it is where a rank alone is named."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732, equation 4)."""
    dora: bool = False
    """Learn magnitude and direction apart (Liu et al. 2024, arXiv:2402.09353, equation 5)."""
    quantize_base: Literal["int8", "nf4"] | None = None
    """Keep the base in 8 or 4 bits while the pairs learn (QLoRA, Dettmers et al. 2023, arXiv:2305.14314): less memory,
    more time. The adapter fits the base itself, and both losses are told. `nf4` needs bitsandbytes."""


class DeltaSettings(_Method):
    """Train a matrix of full shape that is added to each frozen one: the change that LoRA writes as a product."""

    name: Literal["delta"] = "delta"
    targets: Literal["all-linear"] | list[str] | None = None
    """Which linear layers get one: `all-linear`, or ends of module names; left out: the family's own list."""
    last_blocks: int | None = Field(default=None, ge=1)
    """Change the last blocks alone, this many, of an encoder-decoder its decoder's; left out: all blocks."""


MethodSettings = Annotated[
    FullSettings | FreezeSettings | HeadSettings | LoraSettings | DeltaSettings, Field(discriminator="name")
]

LEARNING_RATES = {"full": 5e-5, "freeze": 1e-4, "head": 1e-3, "lora": 2e-4, "delta": 5e-5}
"""Learning rate of each method where the recipe names none."""

CLASSIFIER_LEARNING_RATES = {"full": 2e-4, "freeze": 3e-4, "head": 3e-2, "lora": 2e-3, "delta": 2e-4}
"""The same for objectives whose head starts from random numbers, of a model of `CHOSEN_AT` hidden features.

Of the rates that `benchmarks/banking77.py` tries, the smallest within two points of the best on its validation rows;
`delta` takes those of `full`, since a step of an added matrix is a step of the sum.
"""

CHOSEN_AT = 384
"""Hidden size of the model that those rates were chosen on."""

_STARTS_NEW = ("sequence_classification", "token_classification", "question_answering")


def default_learning_rate(method: str, objective: str | None = None, width: int | None = None) -> tuple[float, str]:
    """Return the learning rate where the recipe names none, and what decided it.

    Under a head that starts new, models wider than `CHOSEN_AT` get less in proportion: an Adam step moves each weight
    alike, so that a layer of twice the inputs moves its outputs twice as far (Yang et al. 2022, arXiv:2203.03466,
    table 3).

    Args:
        method: Name of the method.
        objective: Name of the objective; None: not known yet, taken for one that goes on with a head that has learned.
        width: Hidden features of the model; None: not known yet, or not to be found.
    """
    if objective not in _STARTS_NEW:
        return LEARNING_RATES[method], f"default of method {method}"
    rate = CLASSIFIER_LEARNING_RATES[method] * min(1.0, CHOSEN_AT / (width or CHOSEN_AT))
    told = f" at width {width}" if width is not None else ""
    return float(f"{rate:.2g}"), f"default of method {method} for {objective}{told}"
