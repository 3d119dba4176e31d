"""A merged model that scores the rows alike, and still would write another text, is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.bundles import trained_run

from lorakit.checkpoints.finding import find
from lorakit.errors import LorakitError
from lorakit.generation import decoding
from lorakit.methods.settings import LoraSettings
from lorakit.workflows.merging import merge


@pytest.mark.parametrize("place", [0, 12, 23])
def test_one_other_token_in_one_text_refuses_the_merge(tmp_path, gpt2_folder, monkeypatch, place):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    decode = decoding.decode

    def another(*arguments):
        first, second, *rest = decode(*arguments)
        ids = [*second.ids]
        ids[place] = (ids[place] + 1) % 400
        return [first, replace(second, ids=tuple(ids)), *rest]

    monkeypatch.setattr(decoding, "decode", another)
    with pytest.raises(LorakitError, match=r"is not base and adapter.*and 90% of the texts are continued alike"):
        merge(str(tmp_path / "run"), tmp_path / "merged")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
