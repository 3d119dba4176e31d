"""What the arms work on: models of real shapes with random weights, and rows of log-normal lengths.

Random words follow Zipf's law, so that there is something to learn. All arms read the same files, and cut them into the
same tokens: one word is one token. What is there already is not made again.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.row import TINY

VOCABULARY = 16384
PAD, START, END, MASK, UNKNOWN = "<pad>", "<s>", "</s>", "<mask>", "<unk>"
SPECIAL = (PAD, START, END, MASK, UNKNOWN)
LABELS = 8
"""Classes that the rows of an encoder have."""
EVALUATION_ROWS = 16
SHORTEST = 8
LONGEST = 500 / 96
"""Of the mean."""


@dataclass(frozen=True)
class Shape:
    """A model with random weights, without dropout."""

    family: str
    """`gpt2`, `llama`, `bert` or `t5`."""
    layers: int
    width: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.family}-{self.layers}x{self.width}"


def shape(family: str, layers: int, width: int) -> Shape:
    """Return the shape that is asked for; with `--tiny`, the smallest of its family."""
    return Shape(family, 2, 64) if TINY else Shape(family, layers, width)


GPT = shape("gpt2", 12, 768)
BERT = shape("bert", 6, 384)
T5 = shape("t5", 6, 512)


def model(kind: Shape, root: Path) -> Path:
    """Return the folder of a model and its tokenizer."""
    return made(root / kind.name, lambda folder: _write_model(kind, folder))


def rows(family: str, count: int, mean_length: int, root: Path) -> Path:
    """Return the folder with `train.jsonl`, `count` rows of that mean length in tokens, and `eval.jsonl`."""

    def write(folder: Path) -> None:
        draw = random.Random(0)
        for name, number in (("train", count), ("eval", EVALUATION_ROWS)):
            lines = (json.dumps(_row(family, length, draw)) for length in lengths(number, mean_length, draw))
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    return made(root / f"rows-{family}-{count}-of-{mean_length}", write)


def made(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return a folder that `write` fills, unless it is there; an interruption leaves none that is half full."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".aside-"))
        try:
            write(aside)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def lengths(count: int, mean: int, draw: random.Random) -> list[int]:
    """Return lengths in tokens, shuffled: quantiles of a log-normal, sigma 0.8, from 8 to 500 where the mean is 96."""
    normal = statistics.NormalDist(mu=math.log(mean) - 0.8**2 / 2, sigma=0.8)
    quantiles = [math.exp(normal.inv_cdf((index + 0.5) / count)) for index in range(count)]
    found = [min(round(LONGEST * mean), max(SHORTEST, round(length))) for length in quantiles]
    draw.shuffle(found)
    return found


def words(count: int, draw: random.Random) -> list[str]:
    """Return random words, few of them frequent."""
    return [f"w{min(VOCABULARY - 10, int(draw.paretovariate(0.7)))}" for _ in range(count)]


def _row(family: str, length: int, draw: random.Random) -> dict[str, str]:
    found = words(length, draw)
    if family == "bert":
        # Which words are frequent tells the class.
        label = draw.randrange(LABELS)
        marked = [f"w{100 + label}" if draw.random() < 0.1 else word for word in found]
        return {"text": " ".join(marked), "label": f"class {label}"}
    if family == "t5":
        return {"source": " ".join(found), "target": " ".join(found[: max(4, round(length * 0.42))])}
    return {"prompt": " ".join(found[: length // 2]), "completion": " ".join(found[length // 2 :])}


def tokenizer(family: str) -> Any:
    """Return a tokenizer for which a word is a token, with the start and end tokens of its family."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(SPECIAL)}
    vocabulary.update({f"w{number}": number + len(SPECIAL) for number in range(VOCABULARY - len(SPECIAL))})
    found = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    numbers = [(START, vocabulary[START]), (END, vocabulary[END])]
    frames = {"bert": f"{START} $A {END}", "t5": f"$A {END}"}
    if family in frames:
        found.post_processor = processors.TemplateProcessing(single=frames[family], special_tokens=numbers)
    roles: dict[str, str] = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN}
    if family == "bert":
        roles |= {"cls_token": START, "sep_token": END, "mask_token": MASK}
    return PreTrainedTokenizerFast(tokenizer_object=found, model_max_length=1024, **roles)


def _write_model(kind: Shape, folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    auto = {
        "gpt2": transformers.GPT2LMHeadModel,
        "llama": transformers.LlamaForCausalLM,
        "bert": transformers.BertForSequenceClassification,
        "t5": transformers.T5ForConditionalGeneration,
    }
    auto[kind.family](config(kind)).save_pretrained(folder)
    tokenizer(kind.family).save_pretrained(folder)


def config(kind: Shape) -> Any:
    """Return the config of a shape."""
    import transformers

    ids: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 2}
    if kind.family == "gpt2":
        drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        size = {"n_layer": kind.layers, "n_embd": kind.width, "n_head": max(1, kind.width // 64)}
        return transformers.GPT2Config(n_positions=1024, bos_token_id=2, **size, **drops, **ids)
    if kind.family == "llama":
        heads = max(1, kind.width // 64)
        size = {"num_hidden_layers": kind.layers, "hidden_size": kind.width, "intermediate_size": 4 * kind.width}
        groups = {"num_attention_heads": heads, "num_key_value_heads": max(1, heads // 4)}
        return transformers.LlamaConfig(max_position_embeddings=4096, bos_token_id=1, **size, **groups, **ids)
    if kind.family == "bert":
        names = {number: f"class {number}" for number in range(LABELS)}
        return transformers.BertConfig(
            hidden_size=kind.width,
            num_hidden_layers=kind.layers,
            num_attention_heads=max(1, kind.width // 32),
            intermediate_size=4 * kind.width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            id2label=names,
            label2id={name: number for number, name in names.items()},
            **ids,
        )
    return transformers.T5Config(
        d_model=kind.width,
        d_kv=64,
        num_heads=max(1, kind.width // 64),
        num_layers=kind.layers,
        d_ff=4 * kind.width,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        **ids,
    )
