"""Settings of the section `data`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lorakit.types import TooLong


class SourceSettings(BaseModel):
    """One of several sources."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    path: str = Field(min_length=1)
    """File, folder, `-` for standard input, or `hf://org/name`."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How often each of its rows is read in an epoch (a fraction is a seeded sample); streaming: its share of draws."""
    config: str | None = None
    """Configuration of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""


class DataSettings(BaseModel):
    """Where the rows come from and what is done with odd ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    train: str | SourceSettings | list[str | SourceSettings]
    """Training rows: a file, a folder, `-`, `hf://name`, `recipe:FILE` (shipped), or a list of these with weights."""
    eval: Annotated[float, Field(gt=0, lt=1)] | str | SourceSettings | None = None
    """Evaluation rows: a file, or a share of the training rows, split by prompt with the seed; left out: 0.1."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Role -> column of the file, where names differ: `{prompt: mr, completion: ref}`; `outer.inner` inside objects."""
    header: bool = True
    """Whether the first line of a CSV or TSV names its columns; off: they are called 1, 2, 3, …"""
    label_names: str | list[str] | None = None
    """Names of labels or tags that are numbers from 0: a file with one name a line, or a list."""
    normalise: Literal["nfc"] | None = None
    """`nfc` composes letters that are taken apart in Unicode; left out: text stays as it is."""
    rows: int | None = Field(default=None, ge=1)
    """Use a seeded sample of this many training rows; left out: all."""
    eval_rows: int | None = Field(default=None, ge=1)
    """Use a seeded sample of this many evaluation rows; left out: all."""
    max_length: int | None = Field(default=None, ge=2)
    """Longest example in tokens; left out: the checkpoint's position limit, at most 2048."""
    too_long: TooLong = "error"
    """What to do with a row that is longer: stop, leave it out, cut its prompt at the start, or its text at the end."""
    broken: Literal["error", "skip"] = "error"
    """What to do with a line that cannot be read or lacks a field: stop, or skip and count."""
    quotes: bool | None = None
    """Whether double quotes group a field in CSV and TSV; left out: yes in CSV, no in TSV."""
    stream: bool = False
    """Read rows while training, for what does not fit into memory; needs train.max_steps and an evaluation file."""
    stream_buffer: int = Field(default=10_000, ge=1)
    """Rows held for shuffling while streaming."""

    @property
    def held_out(self) -> float | str | SourceSettings:
        """Where evaluation rows come from: `eval`, or the share of the training rows that stands in its place."""
        return 0.1 if self.eval is None else self.eval
