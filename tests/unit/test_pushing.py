"""What goes to the Hub, what never does, and what is said where the Hub does not take it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import hub as hubs
import lorakit
from bundles import FORMS, trained_run
from conftest import PAIRS, save_checkpoint, tiny_gpt2
from lorakit.adapters.bundle import open_target
from lorakit.checkpoints.finding import find
from lorakit.checkpoints.hashes import write_hashes
from lorakit.errors import LorakitError
from lorakit.methods.settings import LoraSettings

NAME = "me/answers"
IDS_BT = torch.arange(20).reshape(1, 20) * 7 % 400


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hubs.running(monkeypatch, tmp_path / "cache") as found:
        yield found


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for method, (settings, form) in FORMS.items():
        trained_run(folder / method, find("tiny-gpt"), settings, form)
        (folder / method / "metrics.jsonl").write_text('{"row": "a row of the training"}\n')
        write_hashes(folder / method)
    return folder


@pytest.fixture
def run(runs, tmp_path) -> Path:
    return shutil.copytree(runs / "lora", tmp_path / "run")


@pytest.mark.parametrize("method", FORMS)
def test_what_was_pushed_gives_the_scores_of_its_folder_by_its_name(hub, runs, method):
    pushed = lorakit.push(str(runs / method), NAME)
    assert (pushed.url, hub.repositories[NAME].commits) == (f"{hub.url}/{NAME}", [pushed.message])
    expected = open_target(str(runs / method)).load()(IDS_BT).logits
    assert torch.equal(open_target(NAME).load()(IDS_BT).logits, expected)


def test_a_name_on_the_hub_is_a_target_of_info_check_pack_and_merge(hub, run, tmp_path):
    lorakit.push(str(run), NAME, given={"license": "mit"})
    assert lorakit.info(NAME).licence == "mit"
    assert lorakit.check(NAME).faults == 0
    assert "README.md" in lorakit.pack(NAME, tmp_path / "answers.lora").names
    lorakit.merge(NAME, tmp_path / "merged")
    assert (tmp_path / "merged" / "config.json").is_file()


def test_rows_states_and_paths_stay_behind(hub, run):
    pushed = lorakit.push(str(run), NAME)
    files = hub.repositories[NAME].files
    assert {"local.json", "metrics.jsonl"} <= set(pushed.left)
    assert set(files) == {file.name for file in pushed.files} | {".gitattributes"}
    assert set(files) >= {"adapter_model.safetensors", "adapter_config.json", "manifest.json", "README.md"}
    assert not any(b"a row of the training" in held or str(run.parent).encode() in held for held in files.values())


@pytest.mark.parametrize("damage", ["alpha", "secret"])
def test_a_fault_stops_it_before_anything_is_asked(hub, run, damage):
    if damage == "alpha":
        file = run / "adapter_config.json"
        file.write_text(file.read_text().replace('"lora_alpha": 16.0', '"lora_alpha": 160.0'))
        write_hashes(run)
    else:
        with (run / "README.md").open("a") as card:
            card.write("hf_" + "x" * 34)
    with pytest.raises(LorakitError, match="is not pushed"):
        lorakit.push(str(run), NAME)
    assert hub.asked == []


def test_what_is_typed_into_the_card_is_held_to_the_same_check(hub, run):
    with pytest.raises(LorakitError, match=r"README\.md holds a token"):
        lorakit.push(str(run), NAME, given={"license_link": "hf_" + "x" * 34})
    assert hub.asked == []


def test_the_hub_library_reads_the_card_with_its_scores(hub, run, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(pair)}\n" for pair in PAIRS))
    lorakit.push(str(run), NAME, data=str(rows), given={"license": "mit", "language": "en, ko"})
    card = ModelCard(hub.repositories[NAME].files["README.md"].decode())
    assert (card.data.library_name, card.data.license, card.data.language) == ("peft", "mit", ["en", "ko"])
    assert "base_model" not in card.data.to_dict()
    measured = lorakit.evaluate(str(run), rows).target.scores
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        name: score.value for name, score in measured.items()
    }
    name, score = next(iter(measured.items()))
    assert f"| {name.replace('_', ' ')} | {score.value:.4g} | {score.low:.4g} to {score.high:.4g} |" in card.text
    assert f"lorakit generate {NAME}" in card.text
    assert "THIS_FOLDER" not in card.text


@pytest.fixture
def on_the_hub(hub, tmp_path) -> Path:
    """A run whose base is a model of the Hub."""
    save_checkpoint(tmp_path / "base", tiny_gpt2())
    files = {file.name: file.read_bytes() for file in (tmp_path / "base").iterdir()}
    hub.repositories["them/base"] = hubs.Repository(files=files)
    trained_run(tmp_path / "run", find("them/base"), LoraSettings(), "lora")
    return tmp_path / "run"


def test_a_dry_run_asks_nobody_and_tells_every_file(hub, on_the_hub):
    hub.asked.clear()
    pushed = lorakit.push(str(on_the_hub), NAME, dry_run=True, base="them/base")
    assert (hub.asked, NAME in hub.repositories, pushed.url) == ([], False, None)
    sent = lorakit.push(str(on_the_hub), NAME)
    assert [(file.name, file.size) for file in pushed.files] == [(file.name, file.size) for file in sent.files]


def test_a_base_on_the_hub_is_named_with_how_the_model_stands_to_it(hub, on_the_hub):
    pushed = lorakit.push(str(on_the_hub), NAME)
    front = ModelCard(hub.repositories[NAME].files["README.md"].decode()).data.to_dict()
    assert (front["base_model"], front["base_model_relation"]) == ("them/base", "adapter")
    assert not any("base_model" in note for note in pushed.notes)
    assert json.loads(hub.repositories[NAME].files["adapter_config.json"])["base_model_name_or_path"] == "them/base"
    assert open_target(NAME).base.identity == "them/base"


def test_the_lines_of_the_card_load_it_in_peft_and_transformers(hub, on_the_hub, tmp_path):
    expected = open_target(str(on_the_hub)).load()(IDS_BT).logits
    card = lorakit.push(str(on_the_hub), NAME).card
    lines = card.split("```python\n")[1].split("```")[0]
    call = card.split("in one call: `")[1].split("`")[0]
    program = f"{lines}\nimport torch\nids = torch.tensor({IDS_BT.tolist()})\n"
    program += f"torch.save([model(ids).logits, {call}.eval()(ids).logits], {str(tmp_path / 'logits')!r})\n"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for found in torch.load(tmp_path / "logits"):
        assert torch.equal(found, expected)


def test_a_base_that_is_not_on_the_hub_is_told(run):
    assert any("no base_model" in note for note in lorakit.push(str(run), NAME, dry_run=True).notes)


def test_what_its_author_wrote_into_the_card_is_kept(hub, run):
    readme = run / "README.md"
    _, front, body = readme.read_text().split("---\n", 2)
    readme.write_text(f"---\n{front}license: cc0-1.0\n---\n{body}\nMade for the tickets of 2026.\n")
    lorakit.push(str(run), NAME)
    sent = hub.repositories[NAME].files["README.md"].decode()
    assert yaml.safe_load(sent.split("---\n")[1])["license"] == "cc0-1.0"
    assert "Made for the tickets of 2026." in sent


def test_a_second_push_takes_out_what_the_first_one_put_there_and_nothing_else(hub, run):
    (run / "LICENSE").write_text("free")
    (run / "chat_template.jinja").write_text("{{ messages }}")
    write_hashes(run)
    lorakit.push(str(run), NAME)
    hub.repositories[NAME].files["picture.png"] = b"of its author"
    (run / "chat_template.jinja").unlink()
    write_hashes(run)
    pushed = lorakit.push(str(run), NAME)
    files = hub.repositories[NAME].files
    assert "chat_template.jinja" not in files
    assert files["picture.png"] == b"of its author"
    assert f"no longer in {NAME}: chat_template.jinja" in pushed.notes
    assert len(hub.repositories[NAME].commits) == 2


@pytest.mark.parametrize("other", ["a stranger's model", "another form"])
def test_another_model_is_replaced_only_when_forced(hub, runs, other):
    if other == "another form":
        lorakit.push(str(runs / "full"), NAME)
    else:
        hub.repositories[NAME] = hubs.Repository(files={"config.json": b"{}", "model.safetensors": b""})
    before = dict(hub.repositories[NAME].files)
    with pytest.raises(LorakitError, match="holds another model"):
        lorakit.push(str(runs / "lora"), NAME)
    assert hub.repositories[NAME].files == before
    lorakit.push(str(runs / "lora"), NAME, force=True)
    assert not {"config.json", "model.safetensors"} & set(hub.repositories[NAME].files)
    assert open_target(NAME).form == "lora"


def test_private_makes_a_private_repository_and_refuses_a_public_one(hub, run):
    lorakit.push(str(run), NAME, private=True)
    assert hub.repositories[NAME].private
    hub.repositories[NAME].private = False
    with pytest.raises(LorakitError, match="exists and is public"):
        lorakit.push(str(run), NAME, private=True)


@pytest.mark.parametrize(
    ("token", "name", "status", "told"),
    [
        (None, NAME, None, "not logged in"),
        ("token-of-nobody", NAME, None, "does not know the token"),
        (hubs.READER, NAME, None, "may not write to me/answers"),
        (hubs.WRITER, "them/answers", None, "may not write to them/answers"),
        (hubs.WRITER, "me/taken", None, "the name is taken"),
        (hubs.WRITER, NAME, 412, "at the same time"),
        (hubs.WRITER, NAME, 418, "refused with status 418"),
    ],
)
def test_each_refusal_is_one_line_without_the_token(hub, run, monkeypatch, token, name, status, told):
    hub.taken, hub.refuse = {"me/taken"}, status
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(LorakitError, match=told) as refused:
        lorakit.push(str(run), name)
    assert "\n" not in str(refused.value)
    assert token is None or token not in str(refused.value)
    assert not any(repository.commits for repository in hub.repositories.values())


def test_a_hub_out_of_reach_is_told_in_one_line(hub, run, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(LorakitError, match="could not be reached") as refused:
            lorakit.push(str(run), NAME)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["answers", "me/an/swers", "./answers", "me/an swers", "me/-answers-", ""])
def test_a_malformed_name_is_told_before_any_work(tmp_path, name):
    with pytest.raises(LorakitError, match="OWNER/NAME is meant"):
        lorakit.push(str(tmp_path / "nothing"), name)


def test_a_base_model_is_not_pushed(gpt2_folder):
    with pytest.raises(LorakitError, match="nothing was trained on it"):
        lorakit.push(str(gpt2_folder), NAME, dry_run=True)


def test_a_key_that_no_card_has_is_told_with_the_nearest():
    with pytest.raises(LorakitError, match="Did you mean 'license'"):
        lorakit.push("tiny-gpt", NAME, given={"licence": "mit"})


@pytest.mark.parametrize("verb", ["pack", "push"])
def test_a_link_out_of_the_folder_takes_nothing_along(run, tmp_path, verb):
    (tmp_path / "private.txt").write_text("for nobody")
    (run / "README.md").unlink()
    (run / "README.md").symlink_to("../private.txt")
    with pytest.raises(LorakitError, match=r"README\.md is a link out of its folder, to \.\./private\.txt"):
        lorakit.pack(str(run), tmp_path / "run.lora") if verb == "pack" else lorakit.push(str(run), NAME, dry_run=True)


def test_what_came_from_the_hub_whose_cache_is_made_of_links_is_packed(hub, runs, tmp_path):
    lorakit.push(str(runs / "lora"), NAME)
    folder = open_target(NAME).folder
    assert (folder / "adapter_config.json").is_symlink()
    assert "adapter_config.json" in lorakit.pack(NAME, tmp_path / "run.lora").names
