"""Settings of the section `speed`: each fast path can be switched off."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SpeedSettings(BaseModel):
    """Fast paths; each equals the plain path and is taken where the checkpoint allows it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    varlen: bool = True
    """Pack rows end to end without padding; attention runs row by row."""
    logits: bool = True
    """Compute the vocabulary scores at labelled positions only."""
    activations: bool = True
    """Compute GELU in one kernel where the model takes it step by step."""
    products: bool = True
    """Multiply by frozen float32 weights through oneDNN on processors that torch's own library is slow on."""
    widened: bool = True
    """Keep the states of attention in bfloat16 for the backward pass where a processor multiplies in bfloat16."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the blocks (`torch.compile`); `auto`: on a GPU, in a run that is long enough for it to pay."""
    frontier: bool = True
    """Compute frozen lower blocks once, and keep what comes out of them in a file for later epochs."""
    cache_gb: float = Field(default=8.0, gt=0)
    """Largest size of that file in GB; where it would be larger, frozen blocks are computed in every epoch."""
    tokens: bool = True
    """Keep encoded rows in files, which later starts and other processes of this machine map in place of encoding."""
    tokens_gb: float = Field(default=4.0, gt=0)
    """Largest size in GB of all files of encoded rows; beyond it the least lately used are removed."""
