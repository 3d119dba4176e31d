"""The folder people share: opened by any name, tied to its base by fingerprint, free of paths of this computer."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bundles import FORMS, STYLE, trained_run
from conftest import save_checkpoint, tiny_gpt2, tiny_llama
from lorakit.adapters import card
from lorakit.adapters.bundle import open_target
from lorakit.adapters.manifest import FORMAT, Base, Manifest
from lorakit.checkpoints.finding import find
from lorakit.errors import CheckpointError, LorakitError
from lorakit.methods.settings import HeadSettings, LoraSettings
from lorakit.types import Head
from lorakit.workflows.merging import merge

IDS_BT = torch.arange(40).reshape(2, 20) * 7 % 400


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", FORMS)
def test_what_is_opened_is_what_was_written_bit_for_bit(tmp_path, method, kind, gpt2_folder, llama_folder):
    base = find(str(gpt2_folder if kind == "gpt2" else llama_folder))
    settings, form = FORMS[method]
    model = trained_run(tmp_path / "run", base, settings, form)
    target = open_target(str(tmp_path / "run"))
    assert target.form == form
    assert torch.equal(target.load()(IDS_BT).logits, model(IDS_BT).logits)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", FORMS)
def test_every_form_merges_into_a_folder_for_plain_transformers(tmp_path, method, kind, gpt2_folder, llama_folder):
    base = find(str(gpt2_folder if kind == "gpt2" else llama_folder))
    settings, form = FORMS[method]
    model = trained_run(tmp_path / "run", base, settings, form)
    merge(str(tmp_path / "run"), tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(plain(IDS_BT).logits, model(IDS_BT).logits, rtol=0, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer("서울 x").input_ids == base.tokenizer("서울 x").input_ids


def test_a_head_trained_apart_from_tied_embeddings_stays_apart(tmp_path, gpt2_folder):
    base = find(str(gpt2_folder))
    trained_run(tmp_path / "run", base, HeadSettings(), "changed")
    merge(str(tmp_path / "run"), tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert plain.config.tie_word_embeddings is False
    assert torch.equal(plain.transformer.wte.weight, base.load().transformer.wte.weight)
    assert not torch.equal(plain.lm_head.weight, plain.transformer.wte.weight)


def test_plain_peft_reads_our_pair(tmp_path, gpt2_folder):
    model = trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gpt2_folder), tmp_path / "run").eval()
    assert torch.equal(plain(IDS_BT).logits, model(IDS_BT).logits)


def test_no_file_but_local_json_holds_a_path_of_this_computer(tmp_path, gpt2_folder):
    for method, (settings, form) in FORMS.items():
        trained_run(tmp_path / method, find(str(gpt2_folder)), settings, form)
        for file in (tmp_path / method).iterdir():
            if file.name != "local.json":
                assert str(gpt2_folder.parent).encode() not in file.read_bytes(), file.name
                assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_how_to_use_it_travels_with_it(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    merge(str(tmp_path / "run"), tmp_path / "merged")
    for name in ("run", "merged"):
        target = open_target(str(tmp_path / name))
        assert (target.style, target.eos_ids, target.stop_strings) == (STYLE, {0, 3}, ("###",))


def test_a_base_folder_is_a_target_too(gpt2_folder):
    target = open_target(str(gpt2_folder))
    assert (target.form, target.style.format, target.eos_ids) == ("base", "text", {0})


def test_without_local_json_a_local_base_must_be_given(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    (tmp_path / "run" / "local.json").unlink()
    with pytest.raises(CheckpointError, match=r"'tiny gpt2'.*--base FOLDER"):
        open_target(str(tmp_path / "run"))
    assert open_target(str(tmp_path / "run"), base=str(gpt2_folder)).form == "lora"


def test_the_base_may_lie_elsewhere_and_be_sharded_as_long_as_the_weights_are_the_same(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    save_checkpoint(tmp_path / "moved", tiny_gpt2())
    tiny_gpt2().save_pretrained(tmp_path / "moved", max_shard_size="60KB")
    (tmp_path / "moved" / "model.safetensors").unlink()
    assert open_target(str(tmp_path / "run"), base=str(tmp_path / "moved")).base.identity == "local:moved"


@pytest.mark.parametrize(
    "other", [{"seed": 9}, {"n_layer": 1}, {"n_layer": 4}, {"n_embd": 64}], ids=["weights", "fewer", "more", "wider"]
)
@pytest.mark.parametrize("method", ["lora", "freeze"])
def test_another_base_is_refused_also_one_of_the_same_shape(tmp_path, gpt2_folder, method, other):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), *FORMS[method])
    save_checkpoint(tmp_path / "other", tiny_gpt2(**other))
    with pytest.raises(CheckpointError, match="trained on another base"):
        open_target(str(tmp_path / "run"), base=str(tmp_path / "other"))


def test_a_built_in_that_is_the_wrong_base_is_called_by_its_name(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    with pytest.raises(CheckpointError, match=r", and tiny-t5 has sha256:"):
        open_target(str(tmp_path / "run"), base="tiny-t5")


def test_an_adapter_without_manifest_is_held_to_the_shapes_of_its_base(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    for name in ("manifest.json", "hashes.json"):
        (tmp_path / "run" / name).unlink()
    for number, (other, fault) in enumerate([({"n_layer": 1}, "unexpected"), ({"n_layer": 4}, "missing")]):
        save_checkpoint(tmp_path / str(number), tiny_gpt2(**other))
        target = open_target(str(tmp_path / "run"), base=str(tmp_path / str(number)))
        with pytest.raises(CheckpointError, match=fault):
            target.load()


def test_an_adapter_is_not_put_on_the_model_it_was_merged_into(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    merge(str(tmp_path / "run"), tmp_path / "merged")
    with pytest.raises(CheckpointError, match="already merged"):
        open_target(str(tmp_path / "run"), base=str(tmp_path / "merged"))
    with pytest.raises(CheckpointError, match="already merged"):
        merge(str(tmp_path / "merged"), tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_merge_never_lands_on_its_source_or_in_an_adapter(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    for output, words in (("run", "what would be merged"), ("other", "holds an adapter")):
        with pytest.raises(Exception, match=words):
            merge(str(tmp_path / "run"), tmp_path / output, force=True)
        assert open_target(str(tmp_path / output)).form == "lora"


def test_a_wrong_merge_is_told_and_leaves_nothing(tmp_path, gpt2_folder, monkeypatch):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    monkeypatch.setattr("lorakit.adapters.lora_config.LoraFile.scale", lambda *_, **__: 2.001)
    with pytest.raises(Exception, match="is not base and adapter"):
        merge(str(tmp_path / "run"), tmp_path / "merged")
    assert not any("merged" in file.name for file in tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_an_adapter_that_gives_no_finite_numbers_is_refused_before_anything_is_written(tmp_path, gpt2_folder, dtype):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    (tmp_path / "run" / "hashes.json").unlink()
    file = tmp_path / "run" / "adapter_model.safetensors"
    tensors = load_file(file)
    for tensor in tensors.values():
        tensor[0, 0] = 1e38
    save_file(tensors, file)
    with pytest.raises(LorakitError, match="base and adapter themselves give numbers that are not finite"):
        merge(str(tmp_path / "run"), tmp_path / "merged", dtype)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_an_adapter_of_a_built_in_is_merged(tmp_path):
    trained_run(tmp_path / "run", find("tiny-gpt"), LoraSettings(), "lora")
    assert merge(str(tmp_path / "run"), tmp_path / "merged", "float32").same_text == 1


def test_a_merge_around_its_adapter_is_refused(tmp_path, gpt2_folder):
    trained_run(tmp_path / "runs" / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    with pytest.raises(CheckpointError, match="which is read, so it is not replaced"):
        merge(str(tmp_path / "runs" / "run"), tmp_path / "runs", force=True)
    assert open_target(str(tmp_path / "runs" / "run")).form == "lora"


def test_a_model_and_an_adapter_in_one_folder_are_refused(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    shutil.copy(gpt2_folder / "config.json", tmp_path / "run")
    with pytest.raises(CheckpointError, match="at once"):
        open_target(str(tmp_path / "run"))


def test_a_newer_manifest_is_refused_saying_so(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    file = tmp_path / "run" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": FORMAT + 1, "news": True}))
    (tmp_path / "run" / "hashes.json").unlink()
    with pytest.raises(CheckpointError, match="update it"):
        open_target(str(tmp_path / "run"))


def test_an_edited_alpha_is_noticed(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    file = tmp_path / "run" / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 16.0', '"lora_alpha": 999.0'))
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        open_target(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 4),
        ("lora_alpha", 999.0),
        ("use_rslora", True),
        ("use_dora", True),
        ("target_modules", ["c_attn"]),
        ("alpha_pattern", {"c_attn": 99.0}),
    ],
)
def test_an_adapter_that_disagrees_with_its_manifest_is_refused_also_without_hashes(tmp_path, gpt2_folder, key, value):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(targets=["c_attn", "c_proj"]), "lora")
    (tmp_path / "run" / "hashes.json").unlink()
    file = tmp_path / "run" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(CheckpointError, match=rf"manifest\.json disagree \(.*{key}"):
        open_target(str(tmp_path / "run"))


def test_missing_hashes_are_told(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    assert open_target(str(tmp_path / "run")).notes == []
    (tmp_path / "run" / "hashes.json").unlink()
    (note,) = open_target(str(tmp_path / "run")).notes
    assert "hashes.json is missing, so nothing says whether the files are whole" in note


def test_a_missing_manifest_is_told(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    for name in ("manifest.json", "hashes.json"):
        (tmp_path / "run" / name).unlink()
    (note,) = open_target(str(tmp_path / "run"), base=str(gpt2_folder)).notes
    assert "no manifest.json: how prompts were framed and which base is right are not known" in note


def test_opening_does_not_move_the_random_numbers(tmp_path, gpt2_folder):
    trained_run(tmp_path / "run", find(str(gpt2_folder)), LoraSettings(), "lora")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    open_target(str(tmp_path / "run")).load()
    assert torch.equal(torch.rand(3), expected)


def test_the_card_names_the_base_and_the_prompt_format(tmp_path, llama_folder):
    trained_run(tmp_path / "run", find(str(llama_folder)), LoraSettings(), "lora")
    said = (tmp_path / "run" / "README.md").read_text()
    assert "local:tiny-llama" in said
    assert '" => "' in said
    assert tiny_llama().config.model_type not in said.splitlines()[0]


def test_the_card_of_a_classifier_names_its_labels_and_the_class_that_loads_it():
    base = Base(identity="local:x", fingerprint=f"sha256:{0:064}", model_type="bert")
    head = Head("sequence_classification", ("good", "not|so"), "single_label_classification")
    manifest = Manifest(form="full", base=base, head=head)
    text = card.text(manifest)
    assert card.metadata(manifest)["pipeline_tag"] == "text-classification"
    assert "`lorakit predict THIS_FOLDER" in text
    assert "| labels | `good`, `not\\|so` |" in text
    assert "AutoModelForSequenceClassification" in text
    assert "prompt" not in text
