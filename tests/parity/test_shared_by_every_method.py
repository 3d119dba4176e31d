"""Runs of freeze, head and full of all three families: told, checked, packed, used and merged by the same verbs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import lorakit
from every_objective import CASES, Case, Workshop
from lorakit.adapters.bundle import Target, open_target
from lorakit.checkpoints.hashes import read_hashes
from lorakit.cli.main import app
from lorakit.errors import CheckpointError, LorakitError
from runs import train

FAMILIES = {"encoder": "labels-bert", "decoder": "causal_lm", "encoder-decoder": "seq2seq_lm-t5"}
METHODS = {"freeze": {"name": "freeze", "blocks": 1}, "head": "head", "full": "full"}
ONE_TOKEN = torch.tensor([[7, 5, 9, 3]])


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    return Workshop.filled(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module", params=[(family, method) for family in FAMILIES for method in METHODS], ids="-".join)
def made(request, shop) -> tuple[Path, Case, str]:
    family, method = request.param
    case = CASES[FAMILIES[family]]
    run = shop.folder / f"{family}-{method}"
    train(run, shop.model(case), shop.data(case), objective=case.objective, method=METHODS[method], train__max_steps=2)
    return run, case, method


def scores(target: Target) -> torch.Tensor:
    given = {"decoder_input_ids": ONE_TOKEN} if target.head.task == "seq2seq_lm" else {}
    with torch.no_grad():
        return target.load()(input_ids=ONE_TOKEN, **given).logits


def answer(name: Path, base: str | None = None) -> object:
    [found] = lorakit.predict(str(name), "Once", max_new_tokens=4, base=base)
    return found


def test_a_run_is_told_and_found_without_a_fault(made):
    run, _, method = made
    told = lorakit.info(str(run))
    assert told.manifest.method["name"] == method
    assert told.parameters > 0
    looked = lorakit.check(str(run))
    assert [fault for one in looked.looked for fault in one.faults] == []


def test_a_packed_run_is_checked_used_merged_and_unpacked_like_its_folder(made, shop, tmp_path):
    run, case, method = made
    base = str(shop.model(case)) if method != "full" else None
    file = tmp_path / "one.lora"
    lorakit.pack(str(run), file)
    assert lorakit.check(str(file), base).faults == 0
    assert torch.equal(scores(open_target(str(file), base=base)), scores(open_target(str(run))))
    assert answer(file, base) == answer(run)
    lorakit.merge(str(file), tmp_path / "merged", base=base)
    torch.testing.assert_close(scores(open_target(str(tmp_path / "merged"))), scores(open_target(str(run))))
    lorakit.unpack(file, tmp_path / "again")
    lorakit.pack(str(tmp_path / "again"), tmp_path / "again.lora")
    assert (tmp_path / "again.lora").read_bytes() == file.read_bytes()


def test_a_difference_gives_back_the_whole_folder_or_is_refused_where_there_is_none(made, shop, tmp_path):
    run, case, method = made
    file, base = tmp_path / "small.lora", str(shop.model(case))
    if method != "full":
        with pytest.raises(LorakitError, match="pack it without --difference"):
            lorakit.pack(str(run), file, difference=True)
        return
    lorakit.pack(str(run), file, difference=True)
    with zipfile.ZipFile(file) as archive:
        assert "model.safetensors" not in archive.namelist()
    with pytest.raises(CheckpointError, match=r"adapter unpack .*small\.lora --base FOLDER"):
        open_target(str(file))
    lorakit.unpack(file, tmp_path / "again", base=base)
    packed, unpacked = read_hashes(run), read_hashes(tmp_path / "again")
    assert unpacked.items() <= packed.items()
    assert "model.safetensors" in unpacked
    assert torch.equal(scores(open_target(str(file), base=base)), scores(open_target(str(run))))
    assert answer(file, base) == answer(run)
    assert lorakit.check(str(file), base).faults == 0
    lorakit.merge(str(file), tmp_path / "merged", base=base)
    torch.testing.assert_close(scores(open_target(str(tmp_path / "merged"))), scores(open_target(str(run))))


@pytest.fixture(scope="module")
def whole(shop) -> Path:
    """A full run of a built-in, which a file finds by itself."""
    train(shop.folder / "whole", "tiny-gpt", shop.folder / "pairs.jsonl", method="full", train__max_steps=1)
    return shop.folder / "whole"


def test_a_difference_to_a_known_base_is_smaller_the_same_each_time_and_needs_no_word_of_the_base(whole, tmp_path):
    found = lorakit.pack(str(whole), tmp_path / "a.lora", difference=True)
    lorakit.pack(str(whole), tmp_path / "b.lora", difference=True)
    assert (tmp_path / "a.lora").read_bytes() == (tmp_path / "b.lora").read_bytes()
    assert found.size < 0.9 * found.whole
    [text], [expected] = (lorakit.generate(str(name), "Once") for name in (tmp_path / "a.lora", whole))
    assert text.text == expected.text
    assert lorakit.info(str(tmp_path / "a.lora")).bytes == lorakit.info(str(whole)).bytes
    lorakit.pack(str(tmp_path / "a.lora"), tmp_path / "plain.lora")
    lorakit.pack(str(whole), tmp_path / "direct.lora")
    assert (tmp_path / "plain.lora").read_bytes() == (tmp_path / "direct.lora").read_bytes()


def test_the_names_told_of_an_unpacked_difference_are_those_in_its_folder(whole, tmp_path):
    lorakit.pack(str(whole), tmp_path / "a.lora", difference=True)
    told = lorakit.unpack(tmp_path / "a.lora", tmp_path / "out").names
    assert {*told} == {file.name for file in (tmp_path / "out").iterdir()} - {"hashes.json"}


def test_a_merged_model_is_a_difference_too(shop, whole, tmp_path):
    run = train(tmp_path / "run", "tiny-gpt", shop.folder / "pairs.jsonl", train__max_steps=1).folder
    lorakit.merge(str(run), tmp_path / "merged")
    found = lorakit.pack(str(tmp_path / "merged"), tmp_path / "merged.lora", difference=True)
    # Most weights are those of the base, bit for bit.
    assert found.size < found.whole / 2
    lorakit.unpack(tmp_path / "merged.lora", tmp_path / "again")
    assert read_hashes(tmp_path / "again")["model.safetensors"] == read_hashes(tmp_path / "merged")["model.safetensors"]


def test_another_base_is_refused_on_the_way_out_and_on_the_way_in(shop, whole, tmp_path):
    with pytest.raises(LorakitError, match="give the right one with --base"):
        lorakit.pack(str(whole), tmp_path / "a.lora", difference=True, base=str(shop.folder / "gpt2"))
    lorakit.pack(str(whole), tmp_path / "a.lora", difference=True)
    before = {file.name for file in tmp_path.iterdir()}
    with pytest.raises(LorakitError, match="give the right one with --base"):
        lorakit.unpack(tmp_path / "a.lora", tmp_path / "out", base=str(shop.folder / "gpt2"))
    assert {file.name for file in tmp_path.iterdir()} == before == {"a.lora"}


def test_the_command_tells_both_sizes(whole, tmp_path):
    arguments = ["adapter", "pack", str(whole), "--difference", "-o", str(tmp_path / "a.lora")]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'a.lora'}\n")
    assert "MB instead of 10.7" in done.stderr
    done = CliRunner().invoke(app, ["adapter", "unpack", str(tmp_path / "a.lora"), "-o", str(tmp_path / "a")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'a'}\n")
