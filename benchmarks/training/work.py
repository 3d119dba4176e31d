"""What is trained in the comparisons: models of real shapes with random weights, and rows of log-normal lengths.

Random words follow Zipf's law, so that there is something to learn. All arms read the same files, and cut them into the
same tokens: one word is one token.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VOCABULARY = 16384
PAD, START, END, MASK, UNKNOWN = "<pad>", "<s>", "</s>", "<mask>", "<unk>"
SPECIAL = (PAD, START, END, MASK, UNKNOWN)


@dataclass(frozen=True)
class Work:
    """One comparison."""

    name: str
    shape: str
    """`gpt2`, `bert` or `t5`."""
    method: str
    """`lora` or `full`."""
    targets: tuple[str, ...]
    """Layers that LoRA adapts, in every arm."""
    rows_per_step: int
    rows: int
    learning_rate: float
    labels: int = 0
    """Classes of a classifier; 0: text is written."""


WORKS = {
    work.name: work
    for work in (
        Work("gpt_lora", "gpt2", "lora", ("c_attn",), 8, 48, 2e-4),
        Work("gpt_full", "gpt2", "full", (), 8, 32, 5e-5),
        Work("bert_lora", "bert", "lora", ("query", "value"), 16, 256, 1e-3, labels=8),
        Work("bert_full", "bert", "full", (), 16, 160, 1e-4, labels=8),
        Work("t5_lora", "t5", "lora", ("q", "v"), 16, 96, 1e-3),
    )
}


def make(work: Work, folder: Path) -> None:
    """Write the model, the tokenizer, rows to learn and rows to evaluate into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _model(work, folder / "model")
    _tokenizer(work, folder / "model")
    draw = random.Random(0)
    for name, count in (("train", work.rows), ("eval", 32)):
        lines = (json.dumps(_row(work, length, draw)) for length in _lengths(count, draw))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "work.json").write_text(json.dumps(asdict(work)), encoding="utf-8")


def load(folder: Path) -> Work:
    """Return the work that `make` wrote."""
    values = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    return Work(**{**values, "targets": tuple(values["targets"])})


def _lengths(count: int, draw: random.Random) -> list[int]:
    """Return lengths of mean 96 in tokens, from 8 to 500, in random order: quantiles of a log-normal distribution."""
    import statistics

    normal = statistics.NormalDist(mu=4.2443, sigma=0.8)  # exp(mu + sigma^2 / 2) = 96
    quantiles = [2.718281828459045 ** normal.inv_cdf((index + 0.5) / count) for index in range(count)]
    lengths = [min(500, max(8, round(length))) for length in quantiles]
    draw.shuffle(lengths)
    return lengths


def _row(work: Work, length: int, draw: random.Random) -> dict[str, str]:
    words = [f"w{min(VOCABULARY - 10, int(draw.paretovariate(0.7)))}" for _ in range(length)]
    if work.labels:
        # Which words are frequent tells the class.
        label = draw.randrange(work.labels)
        marked = [f"w{100 + label}" if draw.random() < 0.1 else word for word in words]
        return {"text": " ".join(marked), "label": f"class {label}"}
    if work.shape == "t5":
        return {"source": " ".join(words), "target": " ".join(words[: max(4, round(length * 0.42))])}
    return {"prompt": " ".join(words[: length // 2]), "completion": " ".join(words[length // 2 :])}


def _tokenizer(work: Work, folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(SPECIAL)}
    vocabulary.update({f"w{number}": number + len(SPECIAL) for number in range(VOCABULARY - len(SPECIAL))})
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    numbers = [(START, vocabulary[START]), (END, vocabulary[END])]
    frames = {"bert": f"{START} $A {END}", "t5": f"$A {END}"}
    if work.shape in frames:
        tokenizer.post_processor = processors.TemplateProcessing(single=frames[work.shape], special_tokens=numbers)
    roles: dict[str, str] = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN}
    if work.shape == "bert":
        roles |= {"cls_token": START, "sep_token": END, "mask_token": MASK}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=1024, **roles).save_pretrained(folder)


def _model(work: Work, folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    ids: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 2}
    if work.shape == "gpt2":
        drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = transformers.GPT2Config(n_positions=1024, bos_token_id=2, **drops, **ids)
        model: Any = transformers.GPT2LMHeadModel(config)
    elif work.shape == "bert":
        config = transformers.BertConfig(
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **ids,
        )
        model = transformers.BertModel(config)
    else:
        config = transformers.T5Config(
            d_model=512,
            d_kv=64,
            num_heads=8,
            num_layers=6,
            d_ff=2048,
            dropout_rate=0.0,
            decoder_start_token_id=0,
            **ids,
        )
        model = transformers.T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
