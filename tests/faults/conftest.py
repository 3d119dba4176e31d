"""How the tests of this folder read faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorakit.errors import RecipeError
from lorakit.recipe import load


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """Load a text and return its faults as (line or origin, path, problem)."""
    monkeypatch.chdir(tmp_path)

    def _faults(text: str, *overrides: tuple[str, str, str]) -> list[tuple[int | str, str, str]]:
        Path("mine.yaml").write_text(text, encoding="utf-8", newline="")
        with pytest.raises(RecipeError) as caught:
            load("mine.yaml", overrides)
        assert str(caught.value).startswith("mine.yaml has ")
        return [
            (fault.origin if fault.line is None else fault.line, fault.where, fault.problem)
            for fault in caught.value.faults
        ]

    return _faults


@pytest.fixture
def only(faults):
    """Load a text with one fault and return it."""

    def _only(text: str, *overrides: tuple[str, str, str]) -> tuple[int | str, str, str]:
        found = faults(text, *overrides)
        assert len(found) == 1, found
        return found[0]

    return _only
