"""What tests of tags and answers share: tokenizers of three kinds, jobs, and gradients gathered in pieces."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import torch

from conftest import SENTENCES, tiny_tokenizer
from lorakit import families
from lorakit.families import Family
from lorakit.objectives.settings import default
from lorakit.types import Example, FormatName, Job, PromptStyle
from model_types import tiny_model
from writers import unigram_tokenizer


@cache
def word_pieces():
    """A BERT tokenizer trained on the five sentences, case kept; once, as its trainer orders pieces by chance."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    return BertTokenizer(vocab=backend.get_vocab(), do_lower_case=False)


TOKENIZERS = {"bert": word_pieces, "gpt2": tiny_tokenizer, "t5": unigram_tokenizer}
"""By a model type that uses such a tokenizer: WordPiece, byte-level BPE, Unigram."""


def family_of(model_type: str) -> Family:
    """The row of the table."""
    return families.of(model_type)


def a_job(objective: str, format_name: FormatName, tokenizer, model_type: str = "bert", **changes) -> Job:
    """A job for an objective; `changes` of its settings or, where the job has such a field, of the job."""
    own = {name: changes.pop(name) for name in list(changes) if name in Job.__dataclass_fields__}
    settings = default(objective).model_copy(update=changes)
    config = {"type_vocab_size": 2} if model_type == "bert" else {}
    family = family_of(model_type)
    style = PromptStyle(format=format_name)
    return Job(settings, tokenizer, family, config, format_name, style, **{"max_length": 64, **own})


def a_model(model_type: str, auto_name: str, attention: str = "eager", **changes):
    """A tiny seeded model with a vocabulary for every tokenizer here, without dropout."""
    import transformers

    model = tiny_model(model_type, getattr(transformers, auto_name), attention, vocab_size=420, **changes)
    return model.eval()


def gradients(model, objective, examples: Sequence[Example], size: int, double: bool = False) -> list[torch.Tensor]:
    """Gradient of the sum of each term's mean, in micro-batches of `size` examples."""
    model = copy.deepcopy(model).double() if double else model
    model.zero_grad(set_to_none=True)
    batches = [
        objective.collate(examples[place : place + size], packed=False) for place in range(0, len(examples), size)
    ]
    counts = [objective.counts(batch) for batch in batches]
    for batch in batches:
        for name, loss in objective.loss_sums(model, batch).items():
            (loss / sum(count[name] for count in counts)).backward(retain_graph=True)
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


def assert_same_gradients(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Hold to 1e-5 of the largest gradient."""
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        assert float((one.double() - other.double()).abs().max()) < 1e-5 * largest
