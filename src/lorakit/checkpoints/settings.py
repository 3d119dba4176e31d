"""Settings of the section `model`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ModelSettings(BaseModel):
    """Which pretrained checkpoint to start from."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """Hub id, folder, run, merged folder or built-in name; an existing path first, then a built-in, then the Hub."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; left out: main."""
    add_tokens: Annotated[str, Field(min_length=1)] | list[str] | None = None
    """Words that become tokens of their own where the vocabulary lacks them: a file (UTF-8, one a line), or a list."""
