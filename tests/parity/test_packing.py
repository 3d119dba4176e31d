"""Packed rows, padded buckets and single rows give the same loss and the same gradients; no row sees another."""

import copy

import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import save_checkpoint, tiny_gpt2, tiny_llama
from lorakit.fast import varlen
from lorakit.fast.isolation import proves_isolated
from lorakit.fast.shapes import rounded_up
from lorakit.training.loop import train_window
from lorakit.training.settings import SgdSettings
from runs import a_run, in_float64, objective, random_examples, recipe, reference_loss

LENGTHS = (5, 13, 2, 30, 9, 21)
SHAPE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
SHAPES = {
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0, "init_std": 0.2},
    "gpt_neox": {"intermediate_size": 64},
    "mistral": {"intermediate_size": 64, "num_key_value_heads": 2, "sliding_window": 4},
    "gemma2": {
        "intermediate_size": 64,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 4,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def made(model_type, attention="eager"):
    """A tiny seeded model; of gpt2 and llama those of conftest."""
    torch.manual_seed(0)
    if model_type in ("gpt2", "llama"):
        model = {"gpt2": tiny_gpt2, "llama": tiny_llama}[model_type]()
    else:
        config = CONFIG_MAPPING[model_type](**{**SHAPE, **SHAPES[model_type]})
        model = AutoModelForCausalLM.from_config(config).eval()
    model.set_attn_implementation(attention)
    return model


def loss_and_gradients(tmp_path, model, examples, **how):
    run = a_run(tmp_path, model, examples, optim=SgdSettings(learning_rate=0.1), **how)
    caught = {}

    def look(*_):
        caught.update({name: weight.grad for name, weight in run.model.named_parameters() if weight.grad is not None})

    run.optimizer.register_step_pre_hook(look)
    run.optim = SgdSettings(learning_rate=0.1, clip=float("inf"))
    loss, _ = train_window(run, examples, 1)
    return loss, caught


@pytest.mark.parametrize("model_type", ["gpt2", "llama", *SHAPES])
def test_packed_padded_and_single_rows_are_one(tmp_path, model_type):
    examples = random_examples(LENGTHS)
    exact = in_float64(made(model_type))
    expected = reference_loss(exact, examples)
    expected.backward()
    gradients = {name: weight.grad for name, weight in exact.named_parameters() if weight.grad is not None}
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    plain = "sdpa" if exact._supports_sdpa and model_type != "gemma2" else "eager"
    for attention, packed, budget in ((varlen.NAME, True, 10**6), (plain, False, 70), (plain, False, 1)):
        loss, found = loss_and_gradients(tmp_path, made(model_type, attention), examples, packed=packed, budget=budget)
        assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert float((found[name].double() - gradient).abs().max()) <= 2e-5 * scale, (attention, name)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gemma2"])
def test_packed_rows_under_bfloat16_autocast_lose_no_more_than_its_rounding(model_type):
    """Rotated positions leave query and key in float32 there, beside a bfloat16 value."""
    examples = random_examples(LENGTHS)
    learner = objective()
    batch = learner.collate(examples, packed=True)
    (count,) = learner.counts(batch).values()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        sums = learner.loss_sums(made(model_type, varlen.NAME), batch)
    expected = reference_loss(in_float64(made(model_type)), examples)
    assert float(sum(sums.values())) / count == pytest.approx(float(expected.detach()), rel=0.02)


@pytest.mark.parametrize("model_type", ["mistral", "gemma2"])
def test_the_window_of_the_models_above_hides_something(model_type):
    """Else the test above would not notice a window that is ignored."""
    model = made(model_type)
    ids = torch.tensor(random_examples([30])[0].ids, dtype=torch.long)[None]
    wide = copy.deepcopy(model)
    wide.config.sliding_window = 64
    for module in wide.modules():
        if getattr(module, "sliding_window", None):
            module.sliding_window = 64
    with torch.no_grad():
        assert not torch.allclose(model(input_ids=ids).logits, wide(input_ids=ids).logits, atol=1e-3)


@pytest.mark.parametrize("model_type", ["gpt2", "gemma2"])
@pytest.mark.parametrize("packed", [True, False])
def test_scores_at_labelled_positions_alone_change_nothing(tmp_path, model_type, packed):
    examples = random_examples(LENGTHS)
    attention = varlen.NAME if packed else "eager"
    results = [
        loss_and_gradients(
            tmp_path, made(model_type, attention), examples, packed=packed, budget=70, label_logits_only=fast
        )
        for fast in (True, False)
    ]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for name, gradient in results[0][1].items():
        assert torch.allclose(gradient, results[1][1][name], atol=1e-6), name


def test_the_output_layer_sees_labelled_positions_alone():
    model, examples = made("gpt2", varlen.NAME), random_examples([60] * 4)
    seen = []
    model.lm_head.register_forward_hook(lambda _, arguments, __: seen.append(arguments[0].shape[1]))
    learner = objective()
    batch = learner.collate(examples, packed=True)
    learner.loss_sums(model, batch)
    assert seen == [rounded_up(len(batch.targets["targets_L"]))]
    assert seen[0] <= 192 < 240


def test_a_model_that_packs_is_proved_isolated():
    assert proves_isolated(made("gpt2", varlen.NAME)) == ""


def test_attention_across_rows_is_caught(monkeypatch):
    def leaking(module, query, key, value, mask, segment_lengths=None, **options):
        return varlen.attend(module, query, key, value, mask, segment_lengths=None, **options)

    AttentionInterface.register("leaking_for_a_test", leaking)
    said = proves_isolated(made("gpt2", "leaking_for_a_test"))
    assert said.startswith("packed and single rows differ by")


def test_attention_that_goes_another_way_is_caught():
    said = proves_isolated(made("gpt2", "sdpa"))
    assert "does not go through the interface (0 calls for 2 layers)" in said


@pytest.mark.parametrize("model_type", ["bloom", "gpt_neo"])
def test_types_that_cannot_pack_use_buckets_and_say_why(tmp_path, model_type):
    from lorakit.workflows.building import build
    from lorakit.workflows.preparing import prepare_rows

    shapes = {
        "bloom": {"vocab_size": 400, "hidden_size": 32, "n_layer": 2, "n_head": 2},
        "gpt_neo": {
            "vocab_size": 400,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
        },
    }
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**shapes[model_type], **ids))
    folder = save_checkpoint(tmp_path / model_type, model)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "p {number}", "completion": "c"}}\n' for number in range(8)))
    loaded = recipe(folder, rows, data__eval=0.25, data__max_length=32)
    built = build(loaded.recipe, prepare_rows(loaded.recipe), torch.device("cpu"), 1)
    assert not built.packed
    assert built.attention == "sdpa"
    assert built.packing_note == f"{model_type} attends in a way of its own"
