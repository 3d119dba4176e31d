"""ONNX files in onnxruntime say what plain PEFT and plain transformers say: padded, of any length, from the cache."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from bundles import moved_adapter
from conftest import PAIRS, save_checkpoint, tiny_gpt2, tiny_llama, tiny_tokenizer
from lorakit.adapters.bundle import open_target
from lorakit.errors import Interrupted, LorakitError
from lorakit.workflows.exporting import export
from model_types import tiny_model
from runs import train

REASON = "onnx, onnxscript and onnxruntime are not installed: pip install 'lorakit[onnx]'"
pytest.importorskip("onnxscript", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)

BOUND = 1e-5
IDS = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def loaded(folder: Path, name: str = "model"):
    """Return a function from arrays to arrays, by their names."""
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    known = [each.name for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]

    def run(**inputs):
        found = session.run(outputs, {key: inputs[key].numpy() for key in known})
        return {key: torch.from_numpy(each) for key, each in zip(outputs, found, strict=True)}

    run.shapes = {each.name: each.shape for each in session.get_inputs()}
    return run


def share(found, expected) -> float:
    """Largest difference as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


def past_of(run, rows: int, outputs=None) -> dict:
    """Return what was given as what is read next; without outputs, nothing."""
    if outputs is not None:
        return {key.replace("present", "past_key_values"): each for key, each in outputs.items() if "present" in key}
    shapes = {key: shape for key, shape in run.shapes.items() if "past" in key}
    return {key: torch.zeros(rows, heads, 0, width) for key, (_, heads, _, width) in shapes.items()}


def adapter(folder: Path, base: Path, auto, **settings) -> Path:
    """Train and save an adapter with plain PEFT; no manifest."""
    return moved_adapter(folder, auto.from_pretrained(base, dtype=torch.float32), **settings)


def plain(base: Path, folder: Path, auto):
    """Base and adapter through PEFT alone, in float32."""
    return PeftModel.from_pretrained(auto.from_pretrained(base, dtype=torch.float32), folder).eval()


DECODERS = {
    "gpt2, ranks of layers, rsLoRA, a bfloat16 base": (
        lambda: tiny_gpt2().to(torch.bfloat16),
        {
            "target_modules": ["c_attn", "c_proj", "c_fc"],
            "use_rslora": True,
            "rank_pattern": {"h.1.attn.c_attn": 2},
            "alpha_pattern": {"c_fc": 64},
        },
    ),
    "tied llama, DoRA": (
        lambda: tiny_llama(tie_word_embeddings=True),
        {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
    ),
    "tied llama, an output layer of its own": (
        lambda: tiny_llama(tie_word_embeddings=True),
        {"target_modules": ["k_proj"], "modules_to_save": ["lm_head"]},
    ),
    "mistral, a window": (lambda: tiny_model("mistral", AutoModelForCausalLM, **IDS), {"target_modules": ["v_proj"]}),
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_reads_padded_rows_at_once_and_in_pieces_as_plain_peft_does(tmp_path, name):
    make, settings = DECODERS[name]
    base = save_checkpoint(tmp_path / "base", make())
    folder = adapter(tmp_path / "adapter", base, AutoModelForCausalLM, task_type="CAUSAL_LM", r=4, **settings)
    export(str(folder), "onnx", tmp_path / "onnx", base=str(base))
    run, model = loaded(tmp_path / "onnx"), plain(base, folder, AutoModelForCausalLM)
    ids_BT = torch.arange(22).reshape(2, 11) * 7 % 400
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, :3] = 0
    position_ids = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        expected_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=position_ids).logits
    past, found = past_of(run, 2), []
    for begin, end in ((0, 6), (6, 10), (10, 11)):
        read = {"input_ids": ids_BT[:, begin:end], "position_ids": position_ids[:, begin:end]}
        outputs = run(**read, attention_mask=mask_BT[:, :end], **past)
        past = past_of(run, 2, outputs)
        found.append(outputs["logits"])
    real = mask_BT.bool()
    assert share(torch.cat(found, 1)[real], expected_BTV[real]) <= BOUND


def test_new_tokens_are_read_and_scored(tmp_path):
    base = save_checkpoint(tmp_path / "base", tiny_llama(max_position_embeddings=128))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in PAIRS), encoding="utf-8")
    values = {"model__add_tokens": ["Dahlia", "강남"], "optim__learning_rate": 1e-2, "train__max_steps": 3}
    folder = train(tmp_path / "run", base, rows, **values).folder
    done = export(str(folder), "onnx", tmp_path / "onnx")
    assert done.proof.same_text == 1
    run, ids_1T = loaded(tmp_path / "onnx"), torch.tensor([[5, 400, 17, 401, 9, 400]])
    outputs = run(
        input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T), position_ids=torch.arange(6)[None], **past_of(run, 1)
    )
    with torch.inference_mode():
        assert share(outputs["logits"], open_target(str(folder)).load()(ids_1T).logits) <= BOUND
    tokenizer = json.loads((tmp_path / "onnx" / "tokenizer.json").read_text(encoding="utf-8"))
    assert "Dahlia" in [token["content"] for token in tokenizer["added_tokens"]]


def test_a_classifier_trained_with_lora_scores_pairs_in_a_padded_batch(tmp_path):
    base = save_checkpoint(
        tmp_path / "base", tiny_model("bert", AutoModelForSequenceClassification, **IDS, num_labels=3)
    )
    settings = {"task_type": "SEQ_CLS", "r": 4, "target_modules": ["query", "dense"], "modules_to_save": ["classifier"]}
    folder = adapter(tmp_path / "adapter", base, AutoModelForSequenceClassification, **settings)
    export(str(folder), "onnx", tmp_path / "onnx", base=str(base))
    ids_BT = torch.arange(27).reshape(3, 9) * 7 % 400
    inputs = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "token_type_ids": (ids_BT > 100).long()}
    inputs["attention_mask"][1, 4:] = 0
    with torch.inference_mode():
        expected_BO = plain(base, folder, AutoModelForSequenceClassification)(**inputs).logits
    assert share(loaded(tmp_path / "onnx")(**inputs)["logits"], expected_BO) <= BOUND
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["id2label"]["2"] == "LABEL_2"


def test_tags_of_each_token_are_scored_alone_and_in_a_padded_batch(tmp_path):
    model = tiny_model("modernbert", AutoModelForTokenClassification, **IDS, num_labels=5)
    base = save_checkpoint(tmp_path / "base", model)
    export(str(base), "onnx", tmp_path / "onnx")
    run = loaded(tmp_path / "onnx")
    for rows, length in ((1, 1), (3, 17)):
        ids_BT = torch.arange(rows * length).reshape(rows, length) * 7 % 399 + 1
        inputs = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
        inputs["attention_mask"][-1, 9:] = 0
        real = inputs["attention_mask"].bool()
        with torch.inference_mode():
            assert share(run(**inputs)["logits"][real], model(**inputs).logits[real]) <= BOUND


def test_hidden_words_and_next_sentences_of_the_built_in_bert_are_scored(tmp_path):
    export("tiny-bert", "onnx", tmp_path / "onnx")
    model, ids_1T = open_target("tiny-bert").load(), torch.arange(40)[None] * 7
    inputs = {"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T), "token_type_ids": (ids_1T > 100).long()}
    found = loaded(tmp_path / "onnx")(**inputs)
    with torch.inference_mode():
        expected = model(**inputs)
    for name in ("prediction_logits", "seq_relationship_logits"):
        assert share(found[name], expected[name]) <= BOUND


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A T5 with a LoRA adapter as ONNX, its weights beside the graph, and the same in plain PEFT."""
    from lorakit.adapters.export import onnx_file

    folder = tmp_path_factory.mktemp("translator")
    base = save_checkpoint(folder / "base", tiny_model("t5", AutoModelForSeq2SeqLM, **IDS))
    settings = {"task_type": "SEQ_2_SEQ_LM", "r": 4, "target_modules": ["q", "v", "wo"]}
    pairs = adapter(folder / "adapter", base, AutoModelForSeq2SeqLM, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "INLINE", 1000)
        export(str(pairs), "onnx", folder / "onnx", base=str(base))
    return folder / "onnx", plain(base, pairs, AutoModelForSeq2SeqLM)


def test_an_encoder_decoder_writes_from_its_cache_what_plain_peft_scores(translator):
    folder, model = translator
    encode, decode = loaded(folder, "encoder_model"), loaded(folder, "decoder_model_merged")
    source_BT, ids_BU = torch.arange(16).reshape(2, 8) * 7 % 399 + 1, torch.arange(14).reshape(2, 7) * 11 % 400
    mask_BT = torch.ones_like(source_BT)
    mask_BT[1, 5:] = 0
    states_BTD = encode(input_ids=source_BT, attention_mask=mask_BT)["last_hidden_state"]
    past, found, source = (
        past_of(decode, 2),
        [],
        {"encoder_hidden_states": states_BTD, "encoder_attention_mask": mask_BT},
    )
    for begin, end in ((0, 1), (1, 2), (2, 7)):
        goes_on = torch.tensor([begin > 0])
        outputs = decode(input_ids=ids_BU[:, begin:end], **source, **past, use_cache_branch=goes_on)
        past = past_of(decode, 2, outputs)
        found.append(outputs["logits"])
    with torch.inference_mode():
        expected = model(input_ids=source_BT, attention_mask=mask_BT, decoder_input_ids=ids_BU).logits
    assert share(torch.cat(found, 1), expected) <= BOUND


def test_both_steps_of_a_decoder_share_one_set_of_weights_beside_the_graph(translator):
    folder, model = translator
    decoder = {*model.get_decoder().parameters(), *model.base_model.lm_head.parameters()}
    weights = 4 * sum(weight.numel() for weight in decoder)
    # A matrix as small as the output layer here is stored transposed as well.
    assert weights <= (folder / "decoder_model_merged.onnx_data").stat().st_size < 1.5 * weights
    assert not (folder / "decoder_model.onnx").exists()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A GPT-2 that ends at two tokens, as ONNX."""
    folder = tmp_path_factory.mktemp("small")
    model = tiny_gpt2()
    model.generation_config.eos_token_id = [0, 5]
    base = save_checkpoint(folder / "base", model)
    return base, export(str(base), "onnx", folder / "onnx")


def test_a_folder_says_what_optimum_and_transformers_js_ask_for(small):
    folder = small[1].place
    names = {file.name for file in folder.iterdir()}
    assert names >= {"model.onnx", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [0, 5]
    shapes = loaded(folder).shapes
    assert shapes["attention_mask"] == ["batch_size", "past_sequence_length + sequence_length"]
    assert shapes["past_key_values.1.value"] == ["batch_size", 2, "past_sequence_length", 16]


def test_no_path_of_this_computer_stands_in_a_file(small):
    assert b".py" not in (small[1].place / "model.onnx").read_bytes()


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_wrong_weights_are_found_and_nothing_is_written(small, tmp_path, monkeypatch, factor):
    from lorakit.adapters.export import onnx_file

    def other(_):
        model = onnx_file.onnx_ir.load(small[1].place / "model.onnx")
        weight = next(each for name, each in model.graph.initializers.items() if name.endswith("mlp.c_proj.weight"))
        weight.const_value = onnx_file.onnx_ir.tensor(weight.const_value.numpy() * factor, name=weight.name)
        return model

    monkeypatch.setattr(onnx_file, "traced", other)
    with pytest.raises(LorakitError, match="does not compute this model"):
        export(str(small[0]), "onnx", tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_a_graph_is_traced_is_no_fault_of_the_model(small, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise Interrupted(signal.SIGTERM, "stopped by SIGTERM; nothing was written.")

    monkeypatch.setattr("transformers.exporters.exporter_onnx.OnnxExporter.export", stopped)
    with pytest.raises(Interrupted, match="nothing was written"):
        export(str(small[0]), "onnx", tmp_path / "onnx")


def test_an_interrupted_export_leaves_nothing(small, tmp_path, monkeypatch):
    from lorakit.adapters.export import onnx_file

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_file, "traced", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(str(small[0]), "onnx", tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_only_a_folder_that_lorakit_wrote_is_replaced(small, tmp_path):
    with pytest.raises(LorakitError, match="exists and is not empty"):
        export(str(small[0]), "onnx", small[1].place)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rows.csv").write_text("a,b\n")
    with pytest.raises(LorakitError, match="was not written by lorakit"):
        export(str(small[0]), "onnx", tmp_path / "mine", force=True)


def test_onnxruntime_keeps_no_database_of_what_was_done(tmp_path):
    told = {key: value for key, value in os.environ.items() if key not in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")}
    told |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import lorakit.adapters.export.onnx_runtime"], env=told, check=True)
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == []


def test_a_folder_whose_base_pads_with_nothing_pads_with_what_ends_texts(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    base = save_checkpoint(tmp_path / "base", tiny_gpt2(), tokenizer)
    found = AutoTokenizer.from_pretrained(export(str(base), "onnx", tmp_path / "onnx").place)
    batch = found(["a", "one and two"], padding=True)
    assert [sum(row) for row in batch.attention_mask] == [
        len(tokenizer(text).input_ids) for text in ("a", "one and two")
    ]
    assert {batch.input_ids[0][0], batch.input_ids[0][-1]} == {tokenizer("a").input_ids[0], tokenizer.eos_token_id}


def test_a_run_of_sources_tells_its_prefix(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"source": "{number}", "target": "say {number}"}}\n' for number in range(8)))
    values = {"objective__name": "seq2seq_lm", "objective__prefix": "say: ", "train__max_steps": 1}
    base = save_checkpoint(tmp_path / "base", tiny_model("t5", AutoModelForSeq2SeqLM, **IDS))
    folder = train(tmp_path / "run", base, rows, **values).folder
    notes = export(str(folder), "onnx", tmp_path / "onnx").notes
    assert any("the text before a source: write 'say: ' before each" in note for note in notes)
