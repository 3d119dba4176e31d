"""Words that a vocabulary lacks become tokens whose rows begin as the mean of their old pieces, and alone learn."""

import json

import pytest
import torch

from conftest import PAIRS, save_checkpoint, tiny_gpt2, tiny_llama
from lorakit.adapters.bundle import open_target
from lorakit.checkpoints import new_tokens
from lorakit.checkpoints.finding import find
from lorakit.errors import CheckpointError, LorakitError, TrainingError
from runs import train, weights

WORDS = ["Dahlia", "강남", "centre"]
FOLDERS = ("gpt2", "llama", "tied llama", "spare")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The pairs, for all tests of this module."""
    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in PAIRS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tied, untied, and with an embedding that has spare rows."""
    made = {
        "gpt2": tiny_gpt2(),
        "llama": tiny_llama(),
        "tied llama": tiny_llama(tie_word_embeddings=True),
        "spare": tiny_llama(vocab_size=416),
    }
    root = tmp_path_factory.mktemp("bases")
    return {name: save_checkpoint(root / name.replace(" ", "-"), model) for name, model in made.items()}


def learned(tmp_path, folder, data, **values):
    """Train a little with new tokens."""
    given = {"model__add_tokens": WORDS, "optim__learning_rate": 1e-2, "method__rank": 2, **values}
    return train(tmp_path / "run", folder, data, **given)


@pytest.mark.parametrize("kind", FOLDERS)
def test_rows_of_new_tokens_begin_as_the_mean_of_the_rows_of_their_pieces(folders, kind):
    base = find(str(folders[kind]))
    larger, notes = base.with_tokens(WORDS)
    before, after = base.load(), larger.load()
    assert notes == []
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, layer)().weight.double(), getattr(after, layer)().weight.double()
        for word in WORDS:
            pieces = base.tokenizer(word, add_special_tokens=False).input_ids
            assert len(pieces) > 1
            row = new[larger.tokenizer.convert_tokens_to_ids(word)]
            torch.testing.assert_close(row, torch.stack([old[piece] for piece in pieces]).mean(0), atol=1e-7, rtol=1e-7)
        assert torch.equal(new[:400], old[:400])


def test_a_bias_of_the_output_layer_begins_as_the_mean_of_the_pieces_too(tmp_path):
    from model_trials import WORDS as KNOWN
    from model_trials import make_checkpoint

    base = make_checkpoint(tmp_path, "bert")
    text = f"{KNOWN[3]} {KNOWN[4]}"
    larger, _ = base.with_tokens([text])
    pieces = base.tokenizer(text, add_special_tokens=False).input_ids
    bias, own = (each.load().get_output_embeddings().bias.double() for each in (base, larger))
    assert len(pieces) == 2
    torch.testing.assert_close(own[larger.new_rows[0]], (bias[pieces[0]] + bias[pieces[1]]) / 2, atol=1e-7, rtol=1e-7)


def test_the_embedding_grows_only_as_far_as_needed(folders):
    spare, _ = find(str(folders["spare"])).with_tokens(WORDS)
    full, _ = find(str(folders["llama"])).with_tokens(WORDS)
    assert (spare.load().get_input_embeddings().num_embeddings, spare.config["vocab_size"]) == (416, 416)
    assert (full.load().get_input_embeddings().num_embeddings, full.config["vocab_size"]) == (403, 403)


def test_text_with_new_tokens_is_cut_into_fewer_pieces_and_written_back(folders):
    base = find(str(folders["gpt2"]))
    larger, _ = base.with_tokens(WORDS)
    text = "Dahlia lies in the centre, 강남에."
    short, long = larger.tokenizer(text).input_ids, base.tokenizer(text).input_ids
    assert len(short) < len(long)
    assert larger.tokenizer.decode(short) == text


def test_the_original_of_an_enlarged_checkpoint_cuts_text_and_scores_as_before(folders):
    base = find(str(folders["llama"]))
    again = base.with_tokens(WORDS)[0].original
    assert again.config == base.config
    assert again.tokenizer("Dahlia").input_ids == base.tokenizer("Dahlia").input_ids
    assert again.load().get_input_embeddings().num_embeddings == 400


def test_the_checkpoint_they_were_added_to_stays_as_it_is(folders):
    base = find(str(folders["gpt2"]))
    base.with_tokens(WORDS)
    assert len(base.tokenizer) == 400
    assert base.load().get_input_embeddings().num_embeddings == 400


@pytest.mark.parametrize("kind", FOLDERS)
def test_only_the_new_rows_and_the_pairs_learn_and_are_stored(tmp_path, folders, data, kind):
    result = learned(tmp_path, folders[kind], data)
    names, base = result.prepared.built.trainable.names, find(str(folders[kind]))
    rows = [name for name in names if "trainable_tokens_delta" in name]
    assert all(".lora_" in name for name in names if name not in rows)
    stored = weights(result.folder)
    deltas = {name: tensor for name, tensor in stored.items() if ".lora_" not in name}
    assert len(rows) == len(deltas) == (1 if "tied" in kind or kind == "gpt2" else 2)
    assert {tuple(tensor.shape) for tensor in deltas.values()} == {(3, 32)}
    merged = open_target(str(result.folder)).load(merge=True)
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        trained = getattr(merged, layer)().weight
        plain = getattr(base.with_tokens(WORDS)[0].load(), layer)().weight
        changed = (trained != plain).any(dim=1).nonzero().flatten().tolist()
        assert changed == list(range(400, 403))


def test_the_adapter_file_is_larger_by_the_new_rows_alone(tmp_path, folders, data):
    with_rows = learned(tmp_path / "with", folders["llama"], data).finished.weights_bytes
    without = learned(tmp_path / "without", folders["llama"], data, model__add_tokens=None).finished.weights_bytes
    assert 2 * 3 * 32 * 4 <= with_rows - without < 2 * 3 * 32 * 4 + 400  # and two names in the header


def test_training_on_finds_the_tokens_of_the_adapter(tmp_path, folders, data):
    first = learned(tmp_path / "first", folders["gpt2"], data)
    second = train(tmp_path / "second", first.folder, data, optim__learning_rate=1e-3)
    assert second.state.first_loss == pytest.approx(first.state.best_loss, rel=1e-5)
    assert open_target(str(second.folder)).manifest.added_tokens == tuple(WORDS)


def test_other_tokens_beside_those_of_an_adapter_are_refused(tmp_path, folders, data):
    first = learned(tmp_path / "first", folders["gpt2"], data)
    with pytest.raises(LorakitError, match=r"'zebra' cannot be added beside the 3 tokens.*Merge it first"):
        train(tmp_path / "second", first.folder, data, model__add_tokens=["zebra"])


def test_full_training_stores_the_enlarged_model_that_plain_transformers_opens(tmp_path, folders, data):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = learned(tmp_path, folders["gpt2"], data, method="full", method__rank=None).folder
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(str(run)), AutoTokenizer.from_pretrained(str(run))
    assert plain.config.vocab_size == len(tokenizer) == 403
    assert tokenizer("Dahlia").input_ids == [400]
    ids = torch.tensor([[5, 400, 402]])
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, open_target(str(run)).load()(ids).logits)


@pytest.mark.parametrize("kind", FOLDERS)
def test_beside_added_matrices_the_new_rows_alone_move(tmp_path, folders, data, kind):
    values = {"method": "delta", "method__rank": None, "optim__weight_decay": 0.5}
    run = open_target(str(learned(tmp_path, folders[kind], data, **values).folder)).load()
    plain = find(str(folders[kind])).with_tokens(WORDS)[0].load()
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        changed = (getattr(run, layer)().weight != getattr(plain, layer)().weight).any(dim=1)
        assert changed.nonzero().flatten().tolist() == list(range(400, 403))


@pytest.mark.parametrize("method", ["freeze", "head"])
def test_methods_that_freeze_embeddings_refuse_new_tokens(tmp_path, folders, data, method):
    with pytest.raises(TrainingError, match=f"adds 3 tokens, and method {method} freezes the embeddings.*lora"):
        learned(tmp_path, folders["gpt2"], data, method=method, method__rank=None)


def test_known_tokens_are_counted_in_a_note_and_change_nothing(folders):
    base = find(str(folders["gpt2"]))
    word = base.tokenizer.decode([390])
    same, notes = base.with_tokens([word.strip() or "the"])
    assert same is base
    assert len(notes) == 1
    assert "1 token to be added is in the vocabulary already" in notes[0]


def test_a_file_of_tokens_is_read_line_by_line(tmp_path):
    (tmp_path / "words.txt").write_bytes("\ufeffDahlia\r\n강남\ntwo words".encode())
    assert new_tokens.read(str(tmp_path / "words.txt")) == ["Dahlia", "강남", "two words"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"one\n\ntwo\n", "words.txt line 2 is empty"),
        (b"one\ntwo\none\n", "line 3: 'one' is there already .*line 1"),
        (b"one\n two\n", "line 2: ' two' has white space at an end"),
        (b"one\nt\x07wo\n", "line 2: .* holds a control character"),
        (b"one\n\xff\n", "is not UTF-8 text .byte 4"),
        (b"", "names no token"),
    ],
)
def test_a_fault_in_a_file_of_tokens_is_named_with_its_line(tmp_path, content, said):
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(LorakitError, match=said):
        new_tokens.read(str(tmp_path / "words.txt"))


def test_a_missing_file_of_tokens_says_what_is_accepted():
    with pytest.raises(LorakitError, match=r"no-such.txt cannot be read: No such file.*one token a line"):
        new_tokens.read("no-such.txt")


def test_control_tokens_are_refused(folders):
    with pytest.raises(LorakitError, match=r"'<\|endoftext\|>' is a control token"):
        find(str(folders["gpt2"])).with_tokens(["<|endoftext|>"])


def test_a_token_that_would_be_written_back_as_other_bytes_is_refused(folders):
    with pytest.raises(LorakitError, match="would write 'Größe' back"):
        find(str(folders["gpt2"])).with_tokens(["Größe"])


def test_edited_rows_of_an_adapter_are_refused(tmp_path, folders, data):
    run = learned(tmp_path, folders["gpt2"], data).folder
    file = run / "adapter_config.json"
    config = json.loads(file.read_text())
    config["trainable_token_indices"] = {"transformer.wte": [402, 401, 400]}
    file.write_text(json.dumps(config))
    (run / "hashes.json").unlink()
    with pytest.raises(CheckpointError, match="trainable_token_indices are not the rows of the added tokens"):
        open_target(str(run))


@pytest.mark.parametrize("rows", [[-1], [3, 3], [], ["3"], {"wte": [True]}, {"(a+)+$": [3]}])
def test_rows_that_are_no_rows_are_refused(tmp_path, folders, data, rows):
    run = learned(tmp_path, folders["gpt2"], data).folder
    file = run / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "trainable_token_indices": rows}))
    (run / "hashes.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config.json: trainable_token_indices"):
        open_target(str(run))


def test_two_spellings_that_a_tokenizer_reads_alike_are_refused(tmp_path):
    from lorakit.checkpoints.creation import Shape, create

    folder = tmp_path / "bert"
    create(folder, "bert", ["one text, two texts, 서울"] * 9, Shape(2, 32, 2, 64), 460, "float32", 0, False)
    with pytest.raises(LorakitError, match=r"this tokenizer reads .* as one"):
        find(str(folder)).with_tokens(["강남", "\u1100\u1161\u11bc\u1102\u1161\u11b7"])
    larger, _ = find(str(folder)).with_tokens(["강남"])
    assert larger.tokenizer("강남", add_special_tokens=False).input_ids == list(larger.new_rows)
