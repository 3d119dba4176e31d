"""New tokens, trained with LoRA: one result in lorakit, in plain PEFT after its resizing, and in a merged model."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import PAIRS, save_checkpoint, tiny_gpt2, tiny_llama
from lorakit import methods
from lorakit.adapters import merging
from lorakit.adapters.bundle import open_target
from lorakit.checkpoints import ties
from lorakit.checkpoints.finding import quiet
from lorakit.errors import TrainingError
from lorakit.workflows.merging import merge
from model_trials import METHODS, make_checkpoint, plain, scores, stored, trials
from model_trials import WORDS as KNOWN
from runs import train

WORDS = ["Dahlia", "강남", "centre"]
IDS = torch.tensor([[5, 400, 17, 402, 401, 9, 400]])
BASES = {
    "gpt2": tiny_gpt2,
    "llama": tiny_llama,
    "tied llama": lambda: tiny_llama(tie_word_embeddings=True),
    "spare rows": lambda: tiny_llama(vocab_size=416),
}


@pytest.fixture(scope="module", params=BASES)
def run(request, tmp_path_factory):
    """A base and what was trained on it with three new tokens."""
    root = tmp_path_factory.mktemp("new tokens")
    base = save_checkpoint(root / "base", BASES[request.param]())
    data = root / "pairs.jsonl"
    data.write_text("".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in PAIRS), encoding="utf-8")
    values = {"model__add_tokens": WORDS, "optim__learning_rate": 1e-2, "train__sample_answers": 2}
    return base, train(root / "run", base, data, **values).folder


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def test_plain_peft_gives_the_same_scores_once_the_base_has_as_many_rows(run):
    base, folder = run
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    found = logits(PeftModel.from_pretrained(model, str(folder)).eval())
    assert torch.equal(found, logits(open_target(str(folder)).load()))
    untrained = logits(open_target(str(base)).with_tokens(WORDS)[0].load())
    assert (found - untrained).abs().max() > 1e-2


def test_the_merged_folder_opens_with_plain_transformers_and_gives_the_same_scores(run, tmp_path):
    folder = run[1]
    report = merge(str(folder), tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "merged"))
    target = open_target(str(folder))
    torch.testing.assert_close(logits(model), logits(target.load()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(model), logits(target.load(merge=True)), atol=1e-5, rtol=1e-5)
    assert report.same_text == 1
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings >= len(tokenizer) == 403
    assert tokenizer("Dahlia 강남").input_ids == target.tokenizer("Dahlia 강남").input_ids
    assert open_target(str(tmp_path / "merged")).tokenizer("centre").input_ids == [402]


def test_generation_reads_and_writes_with_the_new_tokens(run):
    from lorakit.generation.decoding import decode
    from lorakit.generation.settings import DecodingSettings

    target = open_target(str(run[1]))
    prompt = target.tokenizer("name: Dahlia | area: 강남").input_ids
    assert {400, 401} <= set(prompt)
    settings = DecodingSettings(max_new_tokens=8)
    with_pairs, merged = (
        decode(target.load(merge=merge), [prompt], settings, target.eos_ids) for merge in (False, True)
    )
    assert with_pairs[0].ids == merged[0].ids


TYPES = (
    *("bert", "roberta", "distilbert", "electra", "albert", "deberta-v2", "modernbert"),
    *("opt", "phi", "gpt_neox", "bloom", "gemma", "t5", "bart", "mbart", "pegasus"),
)
UNSEEN = {"t5": ("sequence", "token"), "bart": ("sequence", "question"), "mbart": ("sequence", "question")}
"""Heads under which PEFT 0.21 does not see that encoder and decoder share the embeddings."""


@pytest.mark.parametrize("model_type", TYPES)
def test_every_objective_of_a_type_gives_the_same_after_reading_back_and_merging(tmp_path, model_type):
    checkpoint = make_checkpoint(tmp_path / "base", model_type)
    checkpoint, _ = checkpoint.with_tokens([f"{KNOWN[3]} {KNOWN[4]}", "zorble"])
    biased = checkpoint.skeleton().get_output_embeddings().bias is not None
    for name, trial in trials(checkpoint):
        if trial is None:
            continue
        if name.startswith(UNSEEN.get(model_type, ())):
            with pytest.raises(TrainingError, match=r"share the embeddings\. Train it with method full"):
                _stepped(trial)
            continue
        model, names = _stepped(trial)
        expected, head = scores(trial, model), trial.objective.head
        target = stored(trial, "lora", model, names, tmp_path / name)
        torch.testing.assert_close(scores(trial, target.load(attention="eager")), expected, msg=f"{name} in lorakit")
        folder = tmp_path / f"{name} merged"
        folder.mkdir()
        merging.fold(target, folder)
        torch.testing.assert_close(
            scores(trial, plain(trial, folder)), expected, atol=1e-4, rtol=1e-4, msg=f"{name} merged"
        )
        if not (biased and head.task.startswith(("masked_lm", "causal_lm"))):
            torch.testing.assert_close(scores(trial, _by_peft(trial, target)), expected, msg=f"{name} in PEFT")


def _stepped(trial):
    """Train two steps on rows in which the new tokens stand in place of two others."""
    torch.manual_seed(0)
    checkpoint = trial.checkpoint
    for key in [key for key in trial.batch.inputs if key.endswith("input_ids")]:
        ids = trial.batch.inputs[key]
        for place, number in enumerate(checkpoint.new_rows, 3):
            ids[:, place] = number
    with quiet():
        model, trainable = methods.load("lora")(
            trial.model, METHODS["lora"], checkpoint.family, trial.objective.head, trial.fresh, checkpoint.new_rows
        )
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(2):
        sums, counts = trial.objective.loss_sums(model, trial.batch), trial.objective.counts(trial.batch)
        optimizer.zero_grad()
        sum(sums[term] / counts[term] for term in sums).backward()
        optimizer.step()
    return model.eval(), trainable.names


def _by_peft(trial, target):
    from lorakit.checkpoints import heads

    with quiet():
        model = heads.auto_class(trial.objective.head).from_pretrained(
            str(trial.checkpoint.folder),
            attn_implementation="eager",
            dtype=torch.float32,
            **heads.config_keys(trial.objective.head),
        )
        model.resize_token_embeddings(trial.checkpoint.config["vocab_size"])
        return PeftModel.from_pretrained(model, str(target.folder)).eval()


@pytest.mark.parametrize("model_type", ["marian", "t5 with an output layer of its own"])
def test_a_type_whose_shared_layers_peft_does_not_see_is_refused(tmp_path, model_type):
    checkpoint, _ = make_checkpoint(tmp_path / "base", model_type.split()[0]).with_tokens(["zorble"])
    model = checkpoint.load()
    if model_type != "marian":
        ties.untie(model)
    with quiet(), pytest.raises(TrainingError, match="PEFT does not see which of its layers share the embeddings"):
        methods.load("lora")(model, METHODS["lora"], checkpoint.family, checkpoint.head, (), checkpoint.new_rows)
