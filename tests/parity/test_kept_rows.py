"""Rows that an earlier start encoded are those that this one would encode, and are taken up for nothing else."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

import lorakit
from every_objective import CASES, Workshop
from lorakit.adapters.bundle import open_target
from lorakit.checkpoints import caches
from lorakit.errors import DataError
from lorakit.workflows import encoding, kept_rows
from lorakit.workflows.preparing import prepare_rows
from runs import train

PAIRS = CASES["causal_lm"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop.filled(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, in which files of any size are kept."""
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_rows, "_SMALL", 0)
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def refused(monkeypatch):
    """Whatever encodes from now on fails the test."""

    def fail(*_, **__):
        raise AssertionError("rows were encoded")

    monkeypatch.setattr(kept_rows, "encode", fail)


def as_plain(example):
    """An example as lists, with the types of its numbers."""
    values = {field.name: getattr(example, field.name) for field in dataclasses.fields(example)}
    return {name: (v.dtype.str, v.tolist()) if isinstance(v, np.ndarray) else v for name, v in values.items()}


def described(rows):
    """All that a run takes from its rows, but for the line about where they were kept."""
    report = dataclasses.asdict(rows.report)
    report["notes"] = [note for note in report["notes"] if not note.startswith("encoded rows")]
    steps = [(epoch, [example.row for example in step]) for epoch, step in rows.plan.steps()]
    return {
        "training": [as_plain(example) for example in rows.plan.examples],
        "evaluation": [as_plain(example) for example in rows.evaluation],
        "evaluation_rows": rows.evaluation_rows,
        "report": report,
        "settings": rows.settings,
        "format": rows.format,
        "style": rows.style,
        "stamps": rows.stamps(),
        "steps": steps,
    }


@pytest.mark.parametrize("name", CASES)
def test_a_later_start_takes_up_what_it_would_encode(workshop, name, request):
    plain = described(workshop.rows(CASES[name], speed__tokens=False))
    first = workshop.rows(CASES[name])
    request.getfixturevalue("refused")
    later = workshop.rows(CASES[name])

    assert (first.recalled, later.recalled) == (False, True)
    assert described(first) == plain
    assert described(later) == plain


def test_what_was_skipped_cut_and_doubled_is_told_again(workshop, tmp_path):
    texts = [f"The quick brown fox number {number} jumps." * (1 + number % 3) for number in range(20)]
    rows = [{"text": text, "label": "ab"[number % 2]} for number, text in enumerate([*texts, *texts])]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + "no JSON\n", encoding="utf-8")
    values = {"data__broken": "skip", "data__too_long": "truncate", "data__max_length": 16, "data__eval": 0.2}
    first, later = (
        prepare_rows(workshop.recipe(CASES["labels-bert"], data__train=str(file), **values).recipe) for _ in range(2)
    )

    assert later.recalled
    told = " ".join(later.report.notes)
    assert "1 broken line skipped" in told
    assert "rows longer than 16 tokens: cut at the end" in told
    assert later.report.duplicates > 0
    assert described(later) == described(first)


def changed_rows(workshop, monkeypatch):
    file = workshop.data(PAIRS)
    file.write_bytes(file.read_bytes().replace(b'": "', b'": "x', 1))


def changed_order(workshop, monkeypatch):
    file = workshop.data(PAIRS)
    file.write_text("".join(reversed(file.read_text("utf-8").splitlines(keepends=True))), encoding="utf-8")


def changed_evaluation(workshop, monkeypatch):
    file = workshop.evaluation(PAIRS)
    file.write_bytes(file.read_bytes().replace(b'": "', b'": "x', 1))


def changed_tokenizer(workshop, monkeypatch):
    file = workshop.model(PAIRS) / "tokenizer.json"
    rules = json.loads(file.read_text("utf-8"))
    rules["model"]["merges"] = rules["model"]["merges"][:-20]
    file.write_text(json.dumps(rules), encoding="utf-8")


def changed_template(workshop, monkeypatch):
    (workshop.model(PAIRS) / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")


def changed_positions(workshop, monkeypatch):
    file = workshop.model(PAIRS) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "n_positions": 48}), encoding="utf-8")


def changed_code(workshop, monkeypatch):
    monkeypatch.setattr(kept_rows, "_code", lambda: "of another lorakit")


def changed_library(workshop, monkeypatch):
    monkeypatch.setattr(kept_rows.metadata, "version", lambda name: "0")


CHANGES = [
    changed_rows,
    changed_order,
    changed_evaluation,
    changed_tokenizer,
    changed_template,
    changed_positions,
    changed_code,
    changed_library,
]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_taken_up_once_something_has_changed(workshop, tmp_path, monkeypatch, change):
    ours = Workshop(shutil.copytree(workshop.folder, tmp_path / "ours"))
    ours.rows(PAIRS)
    change(ours, monkeypatch)
    assert not ours.rows(PAIRS).recalled


@pytest.mark.parametrize(
    "values",
    [
        {"data__max_length": 32},
        {"data__too_long": "drop"},
        {"data__rows": 3},
        {"data__eval": 0.3},
        {"data__normalise": "nfc"},
        {"objective__train_on_prompt": True},
        {"objective__separator": "->"},
        {"train__seed": 5},
    ],
)
def test_nothing_is_taken_up_for_other_settings(workshop, values):
    given = {"objective": None, "objective__name": "causal_lm", "data__too_long": "truncate_prompt"}
    workshop.rows(PAIRS, **given)
    assert not workshop.rows(PAIRS, **{**given, **values}).recalled


@pytest.mark.parametrize("values", [{"train__epochs": 7}, {"optim__learning_rate": 0.5}, {"method": "lora"}])
def test_rows_are_taken_up_whatever_else_is_tried_on_them(workshop, values, request):
    workshop.rows(PAIRS)
    request.getfixturevalue("refused")
    assert workshop.rows(PAIRS, **values).recalled


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-4])


def with_another_byte(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, with_another_byte, lambda file: file.unlink()])
@pytest.mark.parametrize("name", ["training/ids.bin", "training/lengths.npy", "understood.json", "hashes.json"])
def test_a_damaged_file_is_made_anew(workshop, cache, damage, name):
    plain = described(workshop.rows(PAIRS))
    (entry,) = cache.iterdir()
    damage(entry / name)
    again = workshop.rows(PAIRS)
    assert not again.recalled
    assert described(again) == plain
    assert workshop.rows(PAIRS).recalled


def test_rows_that_change_while_they_are_read_are_not_kept(workshop, tmp_path, cache, monkeypatch):
    ours = Workshop(shutil.copytree(workshop.folder, tmp_path / "ours"))
    plain = kept_rows.encode

    def encode(*arguments):
        found = plain(*arguments)
        changed_rows(ours, monkeypatch)
        return found

    monkeypatch.setattr(kept_rows, "encode", encode)
    assert any("changed meanwhile" in note for note in ours.rows(PAIRS).amiss)
    assert not list(cache.iterdir())


def test_two_that_begin_at_once_come_to_the_same(workshop, cache, monkeypatch):
    plain, begun = kept_rows.encode, []

    def encode(*arguments):
        found = plain(*arguments)
        if not begun:
            begun.append(True)
            # Another process has a number of its own, by which what it writes aside is told apart.
            with monkeypatch.context() as other:
                other.setattr("os.getpid", lambda: 1)
                begun.append(described(workshop.rows(PAIRS)))
        return found

    monkeypatch.setattr(kept_rows, "encode", encode)
    first = described(workshop.rows(PAIRS))
    assert begun == [True, first]
    assert len(list(cache.iterdir())) == 1
    assert workshop.rows(PAIRS).recalled


def test_rows_stay_readable_when_their_files_are_removed(workshop, cache):
    workshop.rows(PAIRS)
    rows = workshop.rows(PAIRS)
    plain = described(rows)
    shutil.rmtree(cache)
    assert described(rows) == plain


def test_where_nothing_can_be_written_rows_are_encoded_all_the_same(workshop, cache):
    cache.parent.mkdir()
    cache.write_text("a file where the folder would be", encoding="utf-8")
    rows = workshop.rows(PAIRS)
    assert [note for note in rows.amiss if "are not kept" in note]
    assert described(rows) == described(workshop.rows(PAIRS, speed__tokens=False))


def test_the_least_lately_used_entries_make_room(workshop, cache):
    entries = []
    for seed in range(3):
        workshop.rows(PAIRS, train__seed=seed)
        entries += set(cache.iterdir()) - set(entries)
    for seed, moment in ((1, 1), (2, 2), (0, 3)):
        os.utime(entries[seed], (moment, moment))
    assert workshop.rows(PAIRS, train__seed=1).recalled
    most = 3.5 * sum(file.stat().st_size for file in entries[0].rglob("*"))
    workshop.rows(PAIRS, train__seed=3, speed__tokens_gb=most / 1e9)
    assert set(entries) - set(cache.iterdir()) == {entries[2]}


def test_one_row_too_long_in_each_part_is_one_message_of_all(workshop, monkeypatch):
    monkeypatch.setattr(encoding, "_TOGETHER", 2)
    with pytest.raises(DataError, match=r"8 rows"):
        workshop.rows(PAIRS, data__max_length=2)


def test_a_dry_run_keeps_nothing(workshop, tmp_path, cache):
    lorakit.train(workshop.recipe(PAIRS), tmp_path / "run", dry_run=True)
    assert not cache.exists()


def test_a_run_says_that_its_rows_were_taken_up(workshop, tmp_path):
    for name in ("first", "later"):
        train(tmp_path / name, workshop.model(PAIRS), workshop.data(PAIRS), train__max_steps=1)
    assert ["tokens" in open_target(str(tmp_path / name)).manifest.speed for name in ("first", "later")] == [
        False,
        True,
    ]


def test_frozen_blocks_are_computed_once_on_rows_that_were_taken_up(workshop, tmp_path):
    given = {"method": {"name": "freeze", "blocks": 1}, "train__epochs": 3}
    runs = [train(tmp_path / name, workshop.model(PAIRS), workshop.data(PAIRS), **given) for name in ("first", "later")]
    assert runs[1].prepared.rows.recalled
    assert all("frontier" in open_target(str(run.folder)).manifest.speed for run in runs)
    assert runs[0].state.history == runs[1].state.history


def test_the_cache_lies_where_the_user_says(tmp_path):
    assert caches.folder("tokens", {"LORAKIT_CACHE": "/a"}).as_posix() == "/a/tokens"
    assert caches.folder("tokens", {"XDG_CACHE_HOME": "/b"}).as_posix() == "/b/lorakit/tokens"
    assert caches.folder("tokens", {"XDG_CACHE_HOME": "c"}).as_posix().endswith("/.cache/lorakit/tokens")
