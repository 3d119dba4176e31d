"""Settings of the sections `optim` and `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class _Optimizer(_Section):
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate; left out: the default of method and objective (`methods/settings.py`)."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after the warm-up: to 0 along a cosine, along a line, or not at all."""
    warmup: float = Field(default=0.06, ge=0, lt=1)
    """Share of the optimizer steps over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decay of weight matrices; biases, norms and embeddings are never decayed."""
    clip: float = Field(default=1.0, gt=0, allow_inf_nan=True)
    """Bound on the global gradient norm; `.inf` to leave it alone."""


class AdamWSettings(_Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2)."""

    name: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""


class SgdSettings(_Optimizer):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Share of the last update kept."""


class AdafactorSettings(_Optimizer):
    """Steps in proportion to the size of each matrix, its moments kept as a row and a column (Shazeer & Stern 2018,
    arXiv:1804.04235, algorithm 5): what T5 was trained with, and its weights, which differ a hundredfold, ask for."""

    name: Literal["adafactor"] = "adafactor"
    learning_rate: float = Field(gt=0)
    """Highest learning rate, as a share of the root mean square of a weight: 1e-3 to fine-tune, 1e-2 to pretrain."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of weight matrices; biases, norms and embeddings are never decayed."""


OptimSettings = Annotated[AdamWSettings | SgdSettings | AdafactorSettings, Field(discriminator="name")]


class TrainSettings(_Section):
    """How long, in which steps, and where."""

    epochs: int = Field(default=3, ge=1)
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Take exactly this many optimizer steps, however many or few epochs that is."""
    tokens_per_step: int | None = Field(default=None, ge=1)
    """Tokens of one optimizer step over all processes; left out, with rows_per_step: 8192, or 32 rows with labels."""
    rows_per_step: int | None = Field(default=None, ge=1)
    """Rows of one optimizer step over all processes, instead of tokens_per_step."""
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens computed at once on one process; left out: found from the memory at hand. Never changes the result."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the order, the split, dropout and new weights."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Optimizer steps between evaluations; left out: ten evaluations a run. The last step is always evaluated."""
    save_every: int | None = Field(default=None, ge=1)
    """Optimizer steps between saved states; left out: at each evaluation."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations without a better loss; left out: never early."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout of the base; left out: 0 in frozen blocks, `lora` and `head`, the checkpoint's own in trained blocks."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: less memory, about a third more time, the same numbers; `auto`: where
    the longest row would not fit otherwise."""
    sample_answers: int = Field(default=32, ge=0)
    """Answers written at the end to count how many stop by themselves; 0: none."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; `auto`: the accelerator where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; trained weights stay in float32. `auto`: bfloat16 where it is faster."""
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default_factory=list)
    """Where to send metrics besides metrics.jsonl."""
