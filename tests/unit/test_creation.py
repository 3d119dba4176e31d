"""New checkpoints: what is written loads elsewhere, loses no character, and depends on the seed alone."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForPreTraining, AutoModelForSeq2SeqLM, AutoTokenizer

from lorakit.checkpoints.creation import ARCHITECTURES
from lorakit.errors import CheckpointError
from lorakit.workflows.creating import new

SHAPE = {"vocab_size": 480, "layers": 2, "hidden": 24, "heads": 3, "positions": 32}
AUTO_CLASSES = {
    "bert": AutoModelForPreTraining,
    "gpt2": AutoModelForCausalLM,
    "llama": AutoModelForCausalLM,
    "t5": AutoModelForSeq2SeqLM,
}


@pytest.fixture
def text_file(tmp_path):
    file = tmp_path / "some text.txt"
    file.write_text(
        "The cat sat on the mat in 2024.\n\n\nThe dog sat on the cat. 고양이가 앉았다.\n" * 20, encoding="utf-8"
    )
    return file


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_loads_what_was_made_with_every_tensor_accounted_for(architecture, text_file, tmp_path):
    created = new(architecture, text_file, tmp_path / "new", **SHAPE)
    model, found = AUTO_CLASSES[architecture].from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(found.values())
    assert model.config.model_type == architecture
    assert model.num_parameters() == created.parameters
    assert model.get_input_embeddings().weight.shape == (created.vocabulary, 24)


def test_gpt2_has_the_number_of_weights_that_its_shape_gives(text_file, tmp_path):
    created = new("gpt2", text_file, tmp_path / "new", **SHAPE)
    width, blocks = 24, 2
    block = 12 * width**2 + 13 * width
    assert created.parameters == created.vocabulary * width + 32 * width + blocks * block + 2 * width


@pytest.mark.parametrize("text", ["", " ", "naïve café", "서울은 큰 도시다\n\n\n끝", "🎉\x00\t\r\n", "12345 don't  x"])
def test_no_character_is_lost(text, text_file, tmp_path):
    new("gpt2", text_file, tmp_path / "new", **SHAPE)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_stand_alone(text_file, tmp_path):
    new("gpt2", text_file, tmp_path / "new", **SHAPE)
    assert AutoTokenizer.from_pretrained(tmp_path / "new").tokenize("2024") == ["2", "0", "2", "4"]


def test_end_of_text_starts_and_ends_and_there_is_no_padding(text_file, tmp_path):
    new("gpt2", text_file, tmp_path / "new", **SHAPE)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token) == (0, 0, None)
    assert tokenizer.convert_ids_to_tokens(0) == "<|endoftext|>"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_seed_gives_the_same_files_and_another_seed_other_weights(architecture, text_file, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        new(architecture, text_file, tmp_path / name, seed=seed, **SHAPE)
    one, two, three = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two", "three")
    )
    assert one == two
    assert one["model.safetensors"] != three["model.safetensors"]
    assert one["tokenizer.json"] == three["tokenizer.json"]


def test_making_a_checkpoint_leaves_the_random_state_alone(text_file, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    new("gpt2", text_file, tmp_path / "new", **SHAPE)
    assert torch.equal(torch.rand(3), expected)


def test_bfloat16_weights_are_the_float32_weights_rounded(text_file, tmp_path):
    new("gpt2", text_file, tmp_path / "wide", **SHAPE)
    new("gpt2", text_file, tmp_path / "narrow", dtype="bfloat16", **SHAPE)
    wide = AutoModelForCausalLM.from_pretrained(tmp_path / "wide").state_dict()
    narrow = AutoModelForCausalLM.from_pretrained(tmp_path / "narrow").state_dict()
    assert {tensor.dtype for tensor in narrow.values()} == {torch.bfloat16}
    assert all(torch.equal(wide[name].bfloat16(), narrow[name]) for name in wide)


def test_a_short_text_gives_fewer_tokens_and_says_so(text_file, tmp_path):
    created = new("gpt2", text_file, tmp_path / "new", **{**SHAPE, "vocab_size": 5000})
    assert created.vocabulary < 5000
    assert created.notes == (f"The text gives {created.vocabulary:,} tokens, not 5,000; a longer text gives more.",)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["vocab_size"] == created.vocabulary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "hidden is 24 and heads is 5.*try heads 4"),
        ({"vocab_size": 256}, "vocab-size is 256.*at least 257"),
        ({"layers": 0}, "layers, hidden and heads are at least 1"),
        ({"positions": 1}, "positions at least 2"),
    ],
)
def test_numbers_that_cannot_work_are_named(changes, message, text_file, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        new("gpt2", text_file, tmp_path / "new", **{**SHAPE, **changes})
    assert not (tmp_path / "new").exists()


def test_an_odd_llama_head_is_refused(text_file, tmp_path):
    with pytest.raises(CheckpointError, match="24 / 8 = 3 wide"):
        new("llama", text_file, tmp_path / "new", **{**SHAPE, "heads": 8})


def test_an_unknown_architecture_is_told_the_nearest(text_file, tmp_path):
    with pytest.raises(CheckpointError, match=r"one of bert, gpt2, llama, t5\. Did you mean 'gpt2'\?"):
        new("gpt3", text_file, tmp_path / "new", **SHAPE)


@pytest.mark.parametrize(("architecture", "smallest"), [("bert", 161), ("gpt2", 257), ("llama", 257), ("t5", 454)])
def test_the_smallest_vocabulary_that_is_named_reads_english(architecture, smallest, tmp_path):
    file = tmp_path / "plain.txt"
    file.write_text("abc " * 9)
    with pytest.raises(CheckpointError, match=f"vocab-size is {smallest - 1}; .* need at least {smallest}"):
        new(architecture, file, tmp_path / "new", **{**SHAPE, "vocab_size": smallest - 1})
    created = new(architecture, file, tmp_path / "new", **{**SHAPE, "vocab_size": smallest})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert created.vocabulary == len(tokenizer) == smallest
    text = "The quick brown fox jumps over 123 lazy dogs"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("content", [b"", b" \n\n\n \n"])
def test_a_text_without_text_is_refused(content, tmp_path):
    file = tmp_path / "empty.txt"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"empty\.txt holds no text"):
        new("gpt2", file, tmp_path / "new", **SHAPE)


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"missing\.txt cannot be read"):
        new("gpt2", tmp_path / "missing.txt", tmp_path / "new", **SHAPE)
    (tmp_path / "old.txt").write_bytes("한국어".encode("cp949"))
    with pytest.raises(CheckpointError, match=r"old\.txt is not UTF-8 text \(byte 0\)"):
        new("gpt2", tmp_path / "old.txt", tmp_path / "new", **SHAPE)


def test_an_existing_folder_is_kept_unless_forced(text_file, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="--force"):
        new("gpt2", text_file, tmp_path / "new", **SHAPE)
    assert (tmp_path / "new" / "mine.txt").read_text() == "keep"
    with pytest.raises(CheckpointError, match="was not written by lorakit"):
        new("gpt2", text_file, tmp_path / "new", force=True, **SHAPE)
    assert (tmp_path / "new" / "mine.txt").read_text() == "keep"
