"""A .lora file: the same bytes each time, and nothing of one that lies is used or written."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from lorakit.checkpoints import packed
from lorakit.checkpoints.hashes import check_hashes
from lorakit.errors import CheckpointError

FILES = {"a.txt": b"first", "b.bin": bytes(range(256)) * 40}


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def pack(tmp_path, folder) -> Path:
    packed.write_pack(tmp_path / "x.lora", folder, FILES)
    return tmp_path / "x.lora"


def no_base(_):
    raise AssertionError("only a difference needs a base")


def listed(files: dict[str, bytes]) -> bytes:
    """hashes.json of some files, written down once more."""
    entries = {name: {"sha256": sha256(content).hexdigest(), "size": len(content)} for name, content in files.items()}
    return json.dumps({"format": 1, "files": entries}).encode()


def forged(file: Path, files: dict[str, bytes], *odd: tuple[zipfile.ZipInfo, bytes], listing: bytes | None = None):
    """A zip archive made by hand: honest files, then odd entries, all of them listed with true hashes."""
    everything = {**files, **{info.orig_filename: content for info, content in odd}}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hashes.json", listed(everything) if listing is None else listing)
        for name, content in files.items():
            archive.writestr(name, content)
        for info, content in odd:
            archive.writestr(info, content)
    return file


def tree(folder: Path) -> set[str]:
    return {entry.relative_to(folder).as_posix() for entry in folder.rglob("*")}


def test_the_same_files_give_the_same_bytes_whenever_and_in_whatever_order(tmp_path, folder, pack):
    for name in FILES:
        os.utime(folder / name, (1e9, 1e9))
        (folder / name).chmod(0o600)
    packed.write_pack(tmp_path / "y.lora", folder, reversed(FILES))
    assert (tmp_path / "y.lora").read_bytes() == pack.read_bytes()


def test_any_zip_program_reads_it(pack):
    with zipfile.ZipFile(pack) as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {name: archive.read(name) for name in FILES} == FILES
        assert json.loads(archive.read("hashes.json")) == json.loads(listed(FILES))


def test_what_comes_out_is_what_went_in_and_its_hashes_hold(tmp_path, pack):
    packed.unpack(pack, tmp_path / "out", no_base)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES
    assert check_hashes(tmp_path / "out")


def a_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def compressed(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


LIES = {
    "a place above": (zipfile.ZipInfo("../evil"), b"x", "no plain name"),
    "an absolute name": (zipfile.ZipInfo("/tmp/evil"), b"x", "no plain name"),
    "a subfolder": (zipfile.ZipInfo("sub/evil"), b"x", "no plain name"),
    "a drive": (zipfile.ZipInfo("C:evil"), b"x", "no plain name"),
    "a backslash": (zipfile.ZipInfo("..\\evil"), b"x", "no plain name"),
    "a hidden file": (zipfile.ZipInfo(".evil"), b"x", "no plain name"),
    "a link": (a_link("evil"), b"/etc/passwd", "a link or a device"),
    "a bomb": (compressed("evil"), bytes(10**6), "compressed"),
    "a name twice": (zipfile.ZipInfo("A.TXT"), b"other", "twice"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_archive_that_lies_is_refused_and_nothing_is_written(tmp_path, lie):
    info, content, words = LIES[lie]
    forged(tmp_path / "x.lora", {"a.txt": b"first"}, (info, content))
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        packed.unpack(tmp_path / "x.lora", tmp_path / "deep" / "out", no_base)
    assert tree(tmp_path) == before


def test_a_name_that_zipfile_cuts_at_a_zero_byte_is_refused(tmp_path):
    files = {"a.txt": b"first", "goodXbad": b"x"}
    forged(tmp_path / "x.lora", files, listing=listed({"a.txt": b"first", "good": b"x"}))
    raw = (tmp_path / "x.lora").read_bytes().replace(b"goodXbad", b"good\0bad")
    (tmp_path / "x.lora").write_bytes(raw)
    with pytest.raises(CheckpointError, match="no plain name"):
        packed.unpack(tmp_path / "x.lora", tmp_path / "out", no_base)


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    """The bomb that needs no compression: many entries of one stretch of the file."""
    forged(tmp_path / "x.lora", {"a.txt": bytes(5000)})
    raw = (tmp_path / "x.lora").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.lora") as archive:
        start = archive.start_dir
    entry = raw[raw.index(b"PK\x01\x02", start + 4) : raw.index(b"PK\x05\x06")]
    copies = b"".join(entry.replace(b"a.txt", b"%c.txt" % letter) for letter in b"bcdefgh")
    end = bytearray(raw[raw.index(b"PK\x05\x06") :])
    end[8:12] = (9).to_bytes(2, "little") * 2
    size = int.from_bytes(end[12:16], "little") + len(copies)
    end[12:16] = size.to_bytes(4, "little")
    (tmp_path / "x.lora").write_bytes(raw[: raw.index(b"PK\x05\x06")] + copies + end)
    with pytest.raises(CheckpointError, match="more than it is long"):
        packed.read_listing(tmp_path / "x.lora")


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (listed({"a.txt": b"other"}), "its hash differs"),
        (listed({"a.txt": b"longer than it is"}), "another size"),
        (listed({}), "disagree on 'a.txt'"),
        (listed({"a.txt": b"first", "b.txt": b""}), "disagree on 'b.txt'"),
        (b"[" * 10**5, "is damaged"),
        (b" " * (1 << 21), "sound size"),
    ],
)
def test_files_that_are_not_what_the_hashes_say_are_refused(tmp_path, listing, words):
    forged(tmp_path / "x.lora", {"a.txt": b"first"}, listing=listing)
    with pytest.raises(CheckpointError, match=words):
        packed.unpack(tmp_path / "x.lora", tmp_path / "out", no_base)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("before", "behind"), [(b"", bytes(50)), (b"MZ" * 20, b"")], ids=["behind", "before"])
def test_bytes_that_no_hash_stands_for_are_refused(tmp_path, pack, before, behind):
    pack.write_bytes(before + pack.read_bytes() + behind)
    with pytest.raises(CheckpointError, match="before or behind its files"):
        packed.unpack(pack, tmp_path / "out", no_base)
    assert not (tmp_path / "out").exists()


def test_a_flipped_byte_and_a_cut_at_any_place_are_noticed(tmp_path, pack):
    raw = pack.read_bytes()
    for place in range(0, len(raw), 97):
        (tmp_path / "cut.lora").write_bytes(raw[:place])
        with pytest.raises(CheckpointError):
            packed.check_packed(tmp_path / "cut.lora")
    begin = raw.index(b"first")
    (tmp_path / "flipped.lora").write_bytes(raw[:begin] + b"g" + raw[begin + 1 :])
    with pytest.raises(CheckpointError, match="damaged"):
        packed.check_packed(tmp_path / "flipped.lora")


def test_a_taken_name_is_kept(tmp_path, folder, pack):
    before = pack.read_bytes()
    with pytest.raises(CheckpointError, match="--force"):
        packed.write_pack(pack, folder, ["a.txt"])
    assert pack.read_bytes() == before
    packed.write_pack(pack, folder, ["a.txt"], force=True)
    assert packed.read_listing(pack).keys() == {"a.txt"}


def test_force_keeps_what_lorakit_did_not_write(tmp_path, folder):
    (tmp_path / "mine.lora").write_text("letters")
    with pytest.raises(CheckpointError, match="not written by lorakit"):
        packed.write_pack(tmp_path / "mine.lora", folder, FILES, force=True)
    assert (tmp_path / "mine.lora").read_text() == "letters"


def test_an_interrupted_pack_leaves_nothing(tmp_path, folder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(packed, "check_packed", stop)
    with pytest.raises(KeyboardInterrupt):
        packed.write_pack(tmp_path / "x.lora", folder, FILES)
    assert tree(tmp_path) == {"folder", "folder/a.txt", "folder/b.bin"}


def test_a_file_is_unpacked_into_the_cache_once(pack, tmp_path, monkeypatch):
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "cache"))
    first = packed.unpacked(pack, no_base)
    (first / "README.md").write_text("a mark")
    assert packed.unpacked(pack, no_base) == first
    assert (first / "README.md").exists()


def test_files_of_one_name_and_other_contents_do_not_meet_in_the_cache(pack, tmp_path, folder, monkeypatch):
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "cache"))
    (folder / "a.txt").write_bytes(b"other")
    packed.write_pack(tmp_path / "deep" / "x.lora", folder, FILES)
    contents = {
        (packed.unpacked(file, no_base) / "a.txt").read_bytes() for file in (pack, tmp_path / "deep" / "x.lora")
    }
    assert contents == {b"first", b"other"}


def test_a_cache_that_cannot_be_written_says_what_to_do(pack, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="LORAKIT_CACHE"):
        packed.unpacked(pack, no_base)
