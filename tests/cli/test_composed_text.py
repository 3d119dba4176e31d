"""Text that is composed (NFC) in training is composed wherever a run reads text again."""

from __future__ import annotations

import csv
import json
import unicodedata

import pytest
from typer.testing import CliRunner

import lorakit
from conftest import PAIRS
from every_objective import save_bert, save_gpt2
from lorakit.adapters.bundle import open_target
from lorakit.adapters.manifest import MANIFEST, read_manifest
from lorakit.cli.main import app
from lorakit.data.settings import DataSettings
from lorakit.workflows.chatting import Conversation
from lorakit.workflows.evaluating import evaluate
from lorakit.workflows.generating import DecodingSettings, open_writer
from lorakit.workflows.predicting import open_predictor, rows_of
from runs import train

NFC = ["서울은 fox", "dog 서울은", "quick 서울은 dog", "서울은", "서울은 over the dog", "lazy 서울은"]
NFD = [unicodedata.normalize("NFD", text) for text in NFC]
SHORT = DecodingSettings(max_new_tokens=6)


def write_labelled(file, texts):
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *((text, "ab"[row % 2]) for row, text in enumerate(texts))])
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("composed")
    write_labelled(folder / "nfd.csv", NFD)
    write_labelled(folder / "nfd again.csv", NFD)
    write_labelled(folder / "nfc.csv", NFC)
    save_bert(folder / "bert")
    return folder


@pytest.fixture(scope="module")
def classifier(folder):
    values = {"data__normalise": "nfc", "data__eval": str(folder / "nfd again.csv")}
    return train(folder / "run", folder / "bert", folder / "nfd.csv", **values).folder


@pytest.fixture(scope="module")
def writer(folder):
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS), encoding="utf-8")
    save_gpt2(folder / "gpt2")
    return open_writer(train(folder / "gpt", folder / "gpt2", folder / "pairs.jsonl", data__normalise="nfc").folder)


def test_predict_reads_what_training_read(classifier):
    assert lorakit.predict(classifier, NFD) == lorakit.predict(classifier, NFC)


def test_the_command_reads_what_training_read(classifier):
    one, other = (CliRunner().invoke(app, ["predict", str(classifier), text[0], "--json"]) for text in (NFD, NFC))
    assert one.stdout == other.stdout != ""


def test_what_predict_is_told_goes_before_what_training_did(classifier):
    as_it_is = open_predictor(classifier, DataSettings(train="-", normalise=None))
    one, other = (as_it_is.predict(as_it_is.canonical(rows_of(texts))) for texts in (NFD, NFC))
    assert one != other


def test_evaluate_reads_what_training_read(classifier, folder):
    one, other, as_it_is = (
        evaluate(classifier, settings).as_json()
        for settings in (
            DataSettings(train=str(folder / "nfd.csv")),
            DataSettings(train=str(folder / "nfc.csv")),
            DataSettings(train=str(folder / "nfd.csv"), normalise=None),
        )
    )
    assert one["data"] == other["data"] != as_it_is["data"]


def test_generate_reads_what_training_read(writer):
    assert writer.encode(NFD[0]) == writer.encode(NFC[0])
    assert [one.ids for one in writer.write(NFD[:2], SHORT)] == [one.ids for one in writer.write(NFC[:2], SHORT)]


def test_raw_prompts_stay_as_they_are(writer):
    raw = open_writer(writer.target.folder, raw=True)
    assert raw.encode(NFD[0]) != raw.encode(NFC[0])


def test_chat_reads_what_training_read(writer):
    one, other = (Conversation(writer, SHORT).ask(texts[0]) for texts in (NFD, NFC))
    assert one.completion.ids == other.completion.ids


def test_turns_of_a_conversation_are_composed(writer):
    from lorakit.workflows.prompt_text import composed

    turns = [{"role": "user", "content": NFD[0]}, {"role": "assistant", "content": "ok"}]
    assert composed(turns) == [{"role": "user", "content": NFC[0]}, {"role": "assistant", "content": "ok"}]


def test_a_training_that_goes_on_composes_too(classifier, folder):
    values = {"data__eval": str(folder / "nfd again.csv")}
    further = train(folder / "further", classifier, folder / "nfd.csv", **values).folder
    assert read_manifest(further).normalise == "nfc"


def test_a_folder_of_an_earlier_version_is_read_and_composes_nothing(classifier, tmp_path):
    values = json.loads((classifier / MANIFEST).read_text("utf-8"))
    assert values.pop("normalise") == "nfc"
    (tmp_path / MANIFEST).write_text(json.dumps(values), encoding="utf-8")
    assert read_manifest(tmp_path).normalise is None


def test_the_card_says_that_text_is_composed(classifier):
    assert "composed letters (Unicode NFC)" in (classifier / "README.md").read_text("utf-8")
    assert open_target(str(classifier)).manifest.normalise == "nfc"
