"""Settings of the section `speed`: each fast path can be switched off."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SpeedSettings(BaseModel):
    """Fast paths; each equals the plain path and is taken where the checkpoint allows it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    varlen: bool = True
    """Pack rows end to end without padding; attention runs row by row."""
    logits: bool = True
    """Compute the vocabulary scores at labelled positions only."""
    activations: bool = True
    """Compute GELU in one kernel where the model takes it step by step."""
