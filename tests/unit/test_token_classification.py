"""Tags of words: where their labels stand, what they cost, and what is predicted of long rows."""

import numpy as np
import pytest
import torch

from lorakit.data.framing import FramedEncoder
from lorakit.errors import DataError
from lorakit.fast import varlen
from lorakit.objectives.base import IGNORED
from lorakit.objectives.settings import TokenClassificationSettings
from lorakit.objectives.tags import repaired
from lorakit.objectives.token_classification import TokenClassification, first_pieces
from reading import TOKENIZERS, a_job, a_model, assert_same_gradients, gradients
from runs import rows
from writers import bart_tokenizer

TAGS = ("O", "B-LOC", "B-PER", "I-PER")
WORDS = ["Alimentum", "서울은", "👍🏽", "riverside", "fox"]
SENTENCE = {"tokens": WORDS, "tags": ["B-PER", "B-LOC", "O", "O", "B-PER"]}


def a_tagger(tokenizer=None, model_type="bert", **changes) -> TokenClassification:
    tokenizer = tokenizer or TOKENIZERS["bert"]()
    return TokenClassification.of(
        a_job("token_classification", "tagged", tokenizer, model_type, **{"labels": TAGS, **changes})
    )


def a_tagging_model(model_type="bert", attention="eager", **changes):
    return a_model(model_type, "AutoModelForTokenClassification", attention, num_labels=len(TAGS), **changes)


def some_examples(tagger, count=8, seed=0):
    draw = np.random.default_rng(seed)
    fields = []
    for _ in range(count):
        words = draw.choice([*WORDS, "the", "dog"], draw.integers(1, 7)).tolist()
        tags = draw.choice(["O", "B-LOC", "B-PER"], len(words)).tolist()
        fields.append({"tokens": words, "tags": tags})
    return tagger.encode(rows(fields))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_first_piece_of_each_word_carries_its_tag_and_no_other_piece_does(kind):
    tokenizer = TOKENIZERS[kind]()
    tagger = a_tagger(tokenizer, kind)
    (example,) = tagger.encode(rows([SENTENCE]))
    places = np.flatnonzero(example.labels != IGNORED)
    assert [TAGS[label] for label in example.labels[places]] == SENTENCE["tags"]
    # By another route: each stretch from one labelled piece to the next spells one word.
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ends = [*places[1:], len(example.ids)]
    for word, begin, end in zip(WORDS, places, ends, strict=True):
        ids = [token for token in example.ids[begin:end].tolist() if token not in control]
        spelled = tokenizer.decode(ids).strip()
        assert spelled == word or tokenizer.unk_token_id in ids


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_word_that_the_tokenizer_makes_nothing_of_shifts_no_other_label(kind):
    words, tags = ["fox", "\u200b", " ", "dog"], ["B-PER", "O", "O", "B-LOC"]
    tokenizer = TOKENIZERS[kind]()
    tagger = a_tagger(tokenizer, kind)
    (example,) = tagger.encode(rows([{"tokens": words, "tags": tags}]))
    framed = FramedEncoder(tokenizer).words([words])[0]
    read, positions = first_pieces(framed)
    assert [TAGS[label] for label in example.labels[positions]] == [tags[word] for word in read]
    assert {0, 3} <= set(read.tolist())
    assert tagger.counted["unread"] == 4 - len(read) > 0
    assert any("without a character that the tokenizer knows" in note for note in tagger.notes)
    (said,) = tagger.predict(a_tagging_model(kind), rows([{"tokens": words}]))
    assert said["tokens"] == words
    assert len(said["tags"]) == 4
    assert all(said["tags"][word] == "O" for word in range(4) if word not in read)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_loss_is_the_sum_of_what_transformers_averages(kind):
    tagger = a_tagger(TOKENIZERS[kind](), kind)
    model = a_tagging_model(kind).double()
    (example,) = tagger.encode(rows([SENTENCE]))
    batch = tagger.collate([example], packed=False)
    with torch.no_grad():
        found = tagger.loss_sums(model, batch)["tags"]
        labels = torch.from_numpy(example.labels).long()[None]
        expected = model(**batch.inputs, labels=labels).loss * len(WORDS)
    assert tagger.counts(batch) == {"tags": len(WORDS)}
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
def test_padded_packed_and_one_by_one_are_the_same(model_type):
    # RoBERTa counts positions by its padding id, so that its tokenizer must have the same.
    tagger = a_tagger(bart_tokenizer() if model_type == "roberta" else TOKENIZERS[model_type](), model_type)
    examples = some_examples(tagger)
    model, packing = a_tagging_model(model_type), a_tagging_model(model_type, varlen.NAME)
    with torch.no_grad():
        padded = tagger.outputs(model, tagger.collate(examples, packed=False))["logits_LO"]
        packed = tagger.outputs(packing, tagger.collate(examples, packed=True))["logits_LO"]
        alone = [tagger.outputs(model, tagger.collate([one], packed=False))["logits_LO"] for one in examples]
    torch.testing.assert_close(padded, torch.cat(alone), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_eight_by_one_four_by_two_and_one_by_eight_give_the_gradient_of_the_whole(kind):
    tagger = a_tagger(TOKENIZERS[kind](), kind)
    examples, model = some_examples(tagger), a_tagging_model(kind)
    expected = gradients(model, tagger, examples, 1, double=True)
    for size in (8, 2, 1):
        assert_same_gradients(gradients(model, tagger, examples, size), expected)


def test_labels_are_those_of_the_training_rows_with_outside_first():
    found = TokenClassification.resolved(TokenClassificationSettings(), rows([SENTENCE]))
    assert found.labels == ["O", "B-LOC", "B-PER"]
    mended = TokenClassificationSettings(broken_tags="repair")
    assert TokenClassification.resolved(mended, rows([{"tokens": ["a", "b"], "tags": ["O", "I-X"]}])).labels == [
        "O",
        "B-X",
    ]
    given = TokenClassificationSettings(labels=["X", "O"])
    assert TokenClassification.resolved(given, rows([SENTENCE])).labels == ["X", "O"]


def test_named_labels_of_another_kind_become_those_that_rows_have():
    given = TokenClassificationSettings(labels=["O", "B-X", "I-X", "E-X", "S-X"])
    assert TokenClassification.resolved(given, rows([SENTENCE])).labels == ["O", "B-X", "I-X"]


def test_a_model_that_tells_last_and_only_words_apart_says_bio():
    """Its scores are moved by their bias alone: of the tags of two words it always says the last."""
    labels = ("O", "B-LOC", "I-LOC", "S-LOC")
    tagger, model = a_tagger(labels=labels), a_tagging_model()
    with torch.no_grad():
        model.classifier.bias[3] += 100
    (said,) = tagger.predict(model, rows([{"tokens": ["서울은", "fox"]}]))
    assert said["tags"] == ["B-LOC", "B-LOC"]
    assert [one["text"] for one in said["entities"]] == ["서울은", "fox"]
    (example,) = tagger.encode(rows([{"tokens": ["서울은", "fox"], "tags": ["B-LOC", "I-LOC"]}]))
    assert [int(label) for label in example.labels if label != IGNORED] == [1, 2]


def test_rows_of_one_tag_alone_have_nothing_to_learn():
    with pytest.raises(DataError, match="nothing to tell apart: the tags are 'O'"):
        TokenClassification.resolved(TokenClassificationSettings(), rows([{"tokens": ["a"], "tags": ["O"]}]))


def test_a_tag_seen_only_in_evaluation_is_named_with_its_row_and_word():
    with pytest.raises(DataError) as caught:
        a_tagger().encode(rows([SENTENCE, {"tokens": ["fox"], "tags": ["B-PRE"]}]))
    said = str(caught.value)
    assert said.startswith("rows.jsonl line 2 word 1 'fox': the tag 'B-PRE' is not among the 4")
    assert "Did you mean 'B-PER'?" in said


def test_broken_tags_are_refused_with_row_and_word_or_repaired_and_counted():
    broken = rows([SENTENCE, {"tokens": ["the", "fox"], "tags": ["O", "I-PER"]}])
    with pytest.raises(DataError, match=r"rows\.jsonl line 2 word 2 'fox' has 'I-PER'\. .*broken_tags=repair"):
        a_tagger().encode(broken)
    tagger = a_tagger(broken_tags="repair")
    example = tagger.encode(broken)[1]
    assert [TAGS[label] for label in example.labels if label != IGNORED] == ["O", "B-PER"]
    assert tagger.notes == ["1 inside tag that nothing begins: made to begin an entity"]


def test_rows_that_are_too_long_are_refused_left_out_or_cut_and_counted():
    long = {"tokens": WORDS * 4, "tags": SENTENCE["tags"] * 4}
    with pytest.raises(DataError, match=r"longer than max_length 20: rows\.jsonl line 2 \(\d+ tokens\)"):
        a_tagger(max_length=20).encode(rows([{"tokens": ["fox"], "tags": ["O"]}, long]))
    dropping = a_tagger(max_length=20, too_long="drop")
    assert dropping.encode(rows([long])) == []
    assert dropping.notes == ["1 row longer than 20 tokens: left out"]
    cutting = a_tagger(max_length=20, too_long="truncate")
    (example,) = cutting.encode(rows([long]))
    assert len(example) == 20
    kept = int((example.labels != IGNORED).sum())
    assert f"{20 - kept} words cut off: neither learned nor measured" in cutting.notes


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_every_word_of_a_long_row_is_decided_once_at_its_first_piece(kind):
    tagger = a_tagger(TOKENIZERS[kind](), kind, max_length=21)
    words = (WORDS * 9)[:43]
    examples = tagger._unlabelled(rows([{"tokens": words}]), [words])
    assert len(examples) > 2
    assert all(len(example) <= 21 for example in examples)
    decided = [int(word) for example in examples for word in example.labels if word != IGNORED]
    assert decided == list(range(43))
    whole = FramedEncoder(tagger.job.tokenizer).words([words])[0]
    first = dict(zip(*first_pieces(whole), strict=True))
    for example in examples:
        for place in np.flatnonzero(example.labels != IGNORED):
            assert example.ids[place] == whole.ids[first[example.labels[place]]]


def test_the_window_in_which_a_word_stands_farther_from_the_border_decides():
    tagger = a_tagger(max_length=22)
    words = ["fox"] * 60
    # 20 words a window between [CLS] and [SEP], 5 of them shared: 0-19, 15-34, 30-49, 40-59.
    decided = [
        [int(word) for word in example.labels if word != IGNORED]
        for example in tagger._unlabelled(rows([{"tokens": words}]), [words])
    ]
    assert decided == [list(range(17)), list(range(17, 32)), list(range(32, 45)), list(range(45, 60))]


def test_a_row_that_fits_is_predicted_as_the_model_says():
    tagger, model = a_tagger(), a_tagging_model()
    (example,) = tagger.encode(rows([SENTENCE]))
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(example.ids).long()[None]).logits[0]
    expected = [int(logits[place].argmax()) for place in np.flatnonzero(example.labels != IGNORED)]
    (said,) = tagger.predict(model, rows([{"tokens": WORDS}]))
    assert said["tags"] == repaired([TAGS[number] for number in expected])[0]


def test_predictions_do_not_depend_on_what_else_is_predicted():
    tagger, model = a_tagger(max_length=21), a_tagging_model()
    given = rows([{"tokens": WORDS * count} for count in (1, 6, 2, 9)])
    together = tagger.predict(model, given, tokens=64)
    alone = [tagger.predict(model, [one])[0] for one in given]
    assert [one["tags"] for one in together] == [one["tags"] for one in alone]


def trained(tagger, model, fields, steps=40):
    """Take plain steps by hand."""
    batch = tagger.collate(tagger.encode(rows(fields)), packed=False)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        (tagger.loss_sums(model, batch)["tags"] / tagger.counts(batch)["tags"]).backward()
        optimizer.step()
    return model


def test_a_tiny_model_finds_planted_entities_at_their_characters():
    tagger, model = a_tagger(), a_tagging_model()
    fields = [
        {"tokens": ["the", "fox", "서울은", "dog", "."], "tags": ["O", "B-PER", "B-LOC", "O", "O"]},
        {"tokens": ["서울은", "the", "quick", "fox", "dog"], "tags": ["B-LOC", "O", "B-PER", "I-PER", "O"]},
    ]
    trained(tagger, model, fields)
    text = "서울은  the quick fox,dog"
    said, joined = tagger.predict(model, rows([{"text": text}, {"tokens": fields[1]["tokens"]}]))
    assert joined["tags"] == fields[1]["tags"]
    assert [(one["label"], one["text"]) for one in joined["entities"]] == [("LOC", "서울은"), ("PER", "quick fox")]
    assert [(one["start"], one["end"]) for one in joined["entities"]] == [(0, 3), (8, 17)]
    assert said["tokens"] == ["서울은", "the", "quick", "fox", ",", "dog"]
    for one in said["entities"]:
        assert text[one["start"] : one["end"]] == one["text"]
        assert 0.5 < one["probability"] <= 1
    assert ("PER", "quick fox") in [(one["label"], one["text"]) for one in said["entities"]]


def test_a_text_without_words_has_no_tags():
    assert a_tagger().predict(a_tagging_model(), rows([{"text": " "}])) == [{"tokens": [], "tags": [], "entities": []}]
