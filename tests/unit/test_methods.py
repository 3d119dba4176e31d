"""What each method trains and what it leaves alone, by name and bit by bit."""

import math

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from conftest import save_checkpoint, tiny_gpt2, tiny_llama
from lorakit import families, methods
from lorakit.errors import TrainingError
from lorakit.methods.settings import FreezeSettings, FullSettings, HeadSettings, LoraSettings
from lorakit.training.loop import train_window
from runs import a_run, random_examples, recipe

BLOCK = [
    f"{part}.{kind}"
    for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    for kind in ("weight", "bias")
]
EMBEDDINGS = ["transformer.wte.weight", "transformer.wpe.weight"]
FINAL = ["transformer.ln_f.weight", "transformer.ln_f.bias"]


def block(number):
    return [f"transformer.h.{number}.{name}" for name in BLOCK]


def pairs(layers):
    return [
        f"base_model.model.transformer.h.{number}.{layer}.lora_{side}.default.weight"
        for number in range(2)
        for layer in layers
        for side in "AB"
    ]


def applied(settings, model=None, model_type="gpt2"):
    return methods.load(settings.name)(model or tiny_gpt2(), settings, families.of(model_type))


LEARNS = {
    "full": (FullSettings(), EMBEDDINGS + block(0) + block(1) + FINAL),
    "freeze half": (FreezeSettings(), block(1) + FINAL),
    "freeze none": (FreezeSettings(blocks=0), block(0) + block(1) + FINAL),
    "freeze all blocks": (FreezeSettings(blocks=2), FINAL),
    "freeze patterns": (FreezeSettings(patterns=["*.wte.*", "*.h.*"]), ["transformer.wpe.weight", *FINAL]),
    "head": (HeadSettings(), ["lm_head.weight"]),
    "lora": (LoraSettings(rank=4), pairs(["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"])),
    "lora targets": (LoraSettings(rank=4, targets=["c_attn"]), pairs(["attn.c_attn"])),
    "lora all": (
        LoraSettings(rank=4, targets="all-linear"),
        pairs(["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    ),
}


@pytest.mark.parametrize("case", LEARNS)
def test_a_method_trains_these_weights_by_name_and_no_other(case):
    settings, expected = LEARNS[case]
    model, trainable = applied(settings)
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert sorted(learning) == sorted(expected)
    assert sorted(trainable.names) == sorted(expected)
    assert trainable.trained == sum(weight.numel() for weight in learning.values())
    assert sum(weights for _, _, weights in trainable.summary) == trainable.trained


@pytest.mark.parametrize("case", LEARNS)
def test_two_steps_move_what_learns_and_leave_the_rest_bit_for_bit(tmp_path, case):
    settings, expected = LEARNS[case]
    model, _ = applied(settings)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    run = a_run(tmp_path, model, random_examples([9, 14, 20]))
    for step in (1, 2):
        train_window(run, run.plan.examples, step)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == set(expected)


def test_a_tied_head_is_untied_by_head_alone():
    for settings in (FullSettings(), FreezeSettings(), LoraSettings()):
        model, _ = applied(settings)
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model, trainable = applied(HeadSettings())
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    assert torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)
    assert model.config.tie_word_embeddings is False
    assert "12,800 weights more" in trainable.notes[0]


def test_a_frozen_tied_head_is_told():
    assert applied(FreezeSettings())[1].notes == (
        "the output layer is tied to the embeddings, so it is frozen with them",
    )


def test_an_untied_head_learns_under_freeze():
    _, trainable = applied(FreezeSettings(), tiny_llama(), "llama")
    assert "lm_head.weight" in trainable.names
    assert not any("embed_tokens" in name or ".layers.0." in name for name in trainable.names)


def test_fresh_pairs_change_nothing():
    model = tiny_gpt2()
    ids = torch.arange(10)[None]
    before = model(input_ids=ids).logits
    adapted, _ = applied(LoraSettings(), model)
    assert torch.equal(adapted.eval()(input_ids=ids).logits, before)


@pytest.mark.parametrize("rslora", [False, True])
def test_a_pair_is_scaled_by_alpha_over_rank_or_its_root(rslora):
    adapted, _ = applied(LoraSettings(rank=4, alpha=12.0, rslora=rslora))
    layer = adapted.get_submodule("base_model.model.transformer.h.0.attn.c_attn")
    assert layer.scaling["default"] == pytest.approx(12 / (math.sqrt(4) if rslora else 4))


def test_single_layers_get_a_rank_and_an_alpha_of_their_own():
    settings = LoraSettings(rank=4, alpha=8.0, rank_pattern={"h.1.attn.c_attn": 2}, alpha_pattern={"c_fc": 20.0})
    adapted, _ = applied(settings)
    blocks = adapted.base_model.model.transformer.h
    layers = [blocks[0].attn.c_attn, blocks[1].attn.c_attn, blocks[1].mlp.c_fc]
    assert [layer.lora_A["default"].weight.shape[0] for layer in layers] == [4, 2, 4]
    assert [layer.scaling["default"] for layer in layers] == [8 / 4, 8 / 2, 20 / 4]


FAULTS = {
    "rank of no layer": (
        LoraSettings(rank_pattern={"c_fd": 2}),
        "rank_pattern: no .*'c_fd'.*mean 'c_fc'",
    ),
    "own rank too large": (LoraSettings(rank_pattern={"c_fc": 40}), "rank is 40 for .*c_fc, which is 32 x 128"),
    "matches nothing": (LoraSettings(targets=["c_attm"]), "'c_attm' matches no linear layer .* Did you mean 'c_attn'"),
    "matches an embedding": (LoraSettings(targets=["wte"]), "'wte' matches no linear layer"),
    "matches the head": (LoraSettings(targets=["lm_head"]), "'lm_head' matches no linear layer"),
    "rank too large": (LoraSettings(rank=33), "rank is 33 for .*c_attn, which is 32 x 96.* at most 32"),
    "blocks out of range": (FreezeSettings(blocks=3), "method.blocks is 3; this model has 2 blocks, so 0 to 2"),
    "pattern matches nothing": (FreezeSettings(patterns=["*.wpe.*", "encoder.*"]), r"'encoder\.\*' matches no weight"),
    "everything is frozen": (FreezeSettings(patterns=["*"]), "no weight would learn"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_method_that_does_not_fit_says_why(case):
    settings, said = FAULTS[case]
    with pytest.raises(TrainingError, match=said):
        applied(settings)


def with_dropout(tmp_path, model_type):
    """A checkpoint folder whose own dropout is 0.2 everywhere."""
    if model_type == "gpt2":
        model = tiny_gpt2(resid_pdrop=0.2, embd_pdrop=0.2, attn_pdrop=0.2)
    else:
        torch.manual_seed(0)
        model = OPTForCausalLM(
            OPTConfig(
                vocab_size=400,
                hidden_size=32,
                ffn_dim=64,
                word_embed_proj_dim=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=64,
                dropout=0.2,
                attention_dropout=0.2,
                bos_token_id=0,
                eos_token_id=0,
                pad_token_id=0,
            )
        )
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "p {number}", "completion": "c"}}\n' for number in range(8)))
    return save_checkpoint(tmp_path / "base", model), rows


def rates(block):
    """Every dropout probability that a block would use."""
    found = set()
    for part in block.modules():
        if isinstance(part, torch.nn.Dropout):
            found.add(part.p)
        found |= {value for name, value in vars(part).items() if "dropout" in name and isinstance(value, float)}
    return found


@pytest.mark.parametrize("model_type", ["gpt2", "opt"])
@pytest.mark.parametrize(
    ("method", "asked", "expected"),
    [
        ("full", None, [{0.2}, {0.2}]),
        ("freeze", None, [{0.0}, {0.2}]),
        ("head", None, [{0.0}, {0.0}]),
        ("lora", None, [{0.0}, {0.0}]),
        ("delta", None, [{0.2}, {0.2}]),
        ({"name": "delta", "last_blocks": 1}, None, [{0.0}, {0.2}]),
        ("full", 0.0, [{0.0}, {0.0}]),
        ("freeze", 0.3, [{0.3}, {0.3}]),
        ("lora", 0.3, [{0.0, 0.3}, {0.0, 0.3}]),
    ],
)
def test_dropout_is_the_checkpoint_s_own_where_blocks_learn_unless_asked(tmp_path, model_type, method, asked, expected):
    from lorakit.workflows.building import build
    from lorakit.workflows.preparing import prepare_rows

    loaded = recipe(*with_dropout(tmp_path, model_type), method=method, train__dropout=asked, data__eval=0.25)
    model = build(loaded.recipe, prepare_rows(loaded.recipe), torch.device("cpu"), 1).model
    blocks = max((part for part in model.modules() if isinstance(part, torch.nn.ModuleList)), key=len)
    if method == "lora":
        # PEFT adds its own, on the branch of the pair, which method.dropout sets.
        assert [rates(block) - {0.0} for block in blocks] == [wanted - {0.0} for wanted in expected]
    else:
        assert [rates(block) for block in blocks] == expected
