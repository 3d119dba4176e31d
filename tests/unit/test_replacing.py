"""What `--force` may replace: a folder that lorakit wrote, all of it, and never one that something else stands on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lorakit.checkpoints.folders import check_destination, scratch_folder, whole_file, whole_folder
from lorakit.checkpoints.hashes import check_hashes
from lorakit.errors import CheckpointError


def written(folder: Path) -> Path:
    """A folder as any command leaves it."""
    with whole_folder(folder) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "weights").write_text("old")
    (folder / "README.md").write_text("edited by hand")
    (folder / "local.json").write_text("{}")
    return folder


def refused(folder: Path, words: str, sources: tuple[Path, ...] = ()) -> None:
    """Check the refusal and that nothing was touched."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(CheckpointError, match=words):
        check_destination(folder, True, sources)
    if not sources:
        with pytest.raises(CheckpointError, match=words), whole_folder(folder, force=True):
            raise AssertionError("the block ran")
    assert sorted(folder.parent.rglob("*")) == before


def test_what_was_written_here_is_replaced(tmp_path):
    with whole_folder(written(tmp_path / "out"), force=True) as aside:
        (aside / "new").write_text("new")
    assert sorted(os.listdir(tmp_path / "out")) == ["hashes.json", "new"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_of_somebody_else_is_kept(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.doc").write_text("years")
    refused(tmp_path / "thesis", "was not written by lorakit")


@pytest.mark.parametrize("name", ["thesis.doc", "deep/notes.txt", "deep/README.md"])
def test_a_file_added_to_a_written_folder_is_named_and_kept(tmp_path, name):
    (written(tmp_path / "out") / name).write_text("mine")
    refused(tmp_path / "out", f"also holds {name}")


def test_a_file_edited_by_hand_is_named_and_kept(tmp_path):
    (written(tmp_path / "out") / "deep" / "weights").write_text("odl")
    refused(tmp_path / "out", "holds deep/weights, which was edited")


def test_a_link_added_to_a_written_folder_is_named(tmp_path):
    (written(tmp_path / "out") / "elsewhere").symlink_to(tmp_path)
    refused(tmp_path / "out", "also holds elsewhere")


def test_the_current_folder_and_those_around_it_are_kept(tmp_path, monkeypatch):
    out = written(tmp_path / "out")
    monkeypatch.chdir(out)
    refused(out, "is the current folder")
    refused(Path(), "is the current folder")
    monkeypatch.chdir(out / "deep")
    refused(out, "holds the current folder")
    refused(Path(".."), "holds the current folder")


def test_the_home_folder_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(written(tmp_path / "out")))
    refused(tmp_path / "out", "is your home folder")


def test_a_mount_point_is_kept(tmp_path, monkeypatch):
    written(tmp_path / "out")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "out")
    refused(tmp_path / "out", "is a mount point")


def test_a_folder_around_what_is_read_is_kept(tmp_path):
    out = written(tmp_path / "out")
    refused(out, "holds .*deep, which is read", (out / "deep",))
    refused(out, "is .*out, which is read", (out,))


@pytest.mark.parametrize("full", [True, False], ids=["full", "empty"])
def test_a_link_is_refused_and_stays_a_link(tmp_path, full):
    real = written(tmp_path / "real") if full else tmp_path / "real"
    real.mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(real)
    refused(tmp_path / "link", "is a link to .*real")
    assert (tmp_path / "link").is_symlink()


def test_a_damaged_folder_of_a_run_is_replaced(tmp_path):
    (written(tmp_path / "out") / "hashes.json").unlink()
    with whole_folder(tmp_path / "out", own=True) as aside:
        (aside / "new").write_text("new")
    assert check_hashes(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_disk_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(CheckpointError, match=f"{tmp_path} cannot be written; give -o a folder that can"):
        check_destination(tmp_path / "deep" / "out")


def test_a_folder_that_another_command_wrote_meanwhile_is_kept(tmp_path):
    theirs = written(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match="another command wrote it"), whole_folder(tmp_path / "out"):
        theirs.rename(tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_another_command_wrote_meanwhile_is_kept(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    with pytest.raises(CheckpointError, match="exists"), whole_file(tmp_path / "out") as aside:
        aside.write_bytes((tmp_path / "theirs").rename(tmp_path / "out").read_bytes())
    assert (tmp_path / "out").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["out"]


def test_a_scratch_folder_is_gone_and_what_is_written_beside_it_stays(tmp_path):
    with whole_file(tmp_path / "model") as aside:
        aside.write_text("half")
        with scratch_folder(tmp_path / "model") as scratch:
            (scratch / "on the way").write_text("way")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("model", "half")]


def test_a_scratch_folder_of_a_killed_process_is_swept(tmp_path):
    left = tmp_path / ".model.parts.new-99999999"
    left.mkdir()
    with scratch_folder(tmp_path / "model"):
        assert not left.exists()


def test_what_is_written_aside_is_called_by_the_name_that_was_given(tmp_path):
    with pytest.raises(CheckpointError) as caught, scratch_folder(tmp_path / "model") as scratch:
        (scratch / "missing" / "file").write_text("")
    assert str(caught.value) == f"{tmp_path / 'model'} was not written: No such file or directory."
