"""How far each export of each kind of adapter is from the adapter, as `lorakit export` itself proves it.

python -m benchmarks.exports runs/exports              # the table of docs/adapters.md, half an hour of a core
python -m benchmarks.exports runs/exports llama t5     # these families alone

Adapters are trained for a few steps on the rows of the shipped recipes, on the built-in checkpoints (bfloat16, GELU)
and on small Llamas of random weights (SiLU), and stay in the folder, where another start finds them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lorakit
from lorakit.checkpoints.finding import find, quiet
from lorakit.errors import LorakitError
from lorakit.recipe import load
from lorakit.workflows.export_order import Proof
from lorakit.workflows.exporting import EXPORTERS

EXACT = {name: (name, "f32") for name in ("safetensors", "onnx", "gguf", "gguf-lora", "ollama") if name in EXPORTERS}
"""Column of the first table -> format and dtype."""
ROUNDED = {dtype: ("gguf", dtype) for dtype in ("bf16", "f16", "q8_0")}
"""The same of the second table."""
STEPS, TOKENS_PER_STEP = 10, 512

TABLES = {"gpt": "quickstart", "llama": "quickstart", "bert": "quickstart-classify", "t5": "quickstart-translate"}
"""Family -> recipe whose rows it learns."""
NEW_TOKENS = ["Alimentum", "riverside"]


@dataclass(frozen=True)
class Case:
    """One adapter."""

    name: str
    family: str
    model: str = ""
    """A folder of `llamas`; empty: the recipe's own."""
    changes: Mapping[str, object] = field(default_factory=dict)
    """Of the recipe, over a LoRA of rank 8."""
    energy: float | None = None
    """What a cut to other ranks for each layer keeps."""


CASES = (
    Case("GPT-2, tied, bfloat16", "gpt"),
    Case("— rsLoRA", "gpt", changes={"method.rslora": True}),
    Case("— DoRA", "gpt", changes={"method.dora": True}),
    Case("— ranks by layer", "gpt", energy=0.9),
    Case("— new tokens", "gpt", changes={"model.add_tokens": NEW_TOKENS}),
    Case("— output layer, no longer tied", "gpt", changes={"method": {"name": "head"}}),
    Case("Llama, tied, float32", "llama", "tied"),
    Case("Llama, untied, float32", "llama", "untied"),
    Case("— rsLoRA", "llama", "untied", {"method.rslora": True}),
    Case("— DoRA", "llama", "untied", {"method.dora": True}),
    Case("— ranks by layer", "llama", "untied", energy=0.9),
    Case("— new tokens", "llama", "untied", {"model.add_tokens": NEW_TOKENS}),
    Case("Llama, untied, bfloat16", "llama", "bfloat16"),
    Case("BERT, labels, bfloat16", "bert"),
    Case("— rsLoRA", "bert", changes={"method.rslora": True}),
    Case("— DoRA", "bert", changes={"method.dora": True}),
    Case("— ranks by layer", "bert", energy=0.9),
    Case("— new tokens", "bert", changes={"model.add_tokens": NEW_TOKENS}),
    Case("T5, bfloat16", "t5"),
    Case("— rsLoRA", "t5", changes={"method.rslora": True}),
    Case("— DoRA", "t5", changes={"method.dora": True}),
    Case("— ranks by layer", "t5", energy=0.9),
    Case("— new tokens", "t5", changes={"model.add_tokens": NEW_TOKENS}),
)


def llamas(folder: Path) -> None:
    """Write small Llamas of random weights that cut text as tiny-gpt does."""
    import torch
    import transformers

    tokenizer = find("tiny-gpt").tokenizer
    for name in ("tied", "untied", "bfloat16"):
        if (folder / name).exists():
            continue
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=name == "tied",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            # A wider spread than the usual one: greedy text then varies, and can differ.
            initializer_range=0.1,
        )
        model = transformers.LlamaForCausalLM(config)
        (model.bfloat16() if name == "bfloat16" else model).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def adapter(case: Case, number: int, folder: Path) -> Path:
    """Return the folder of an adapter, trained where it is not there yet."""
    run, cut = folder / f"adapter-{number}", folder / f"adapter-{number}-cut"
    if not (run / "manifest.json").exists():
        values: dict[str, object] = {
            "method": {"name": "lora", "rank": 8, "alpha": 16},
            "optim.learning_rate": 4e-3,
            "train.max_steps": STEPS,
            "train.tokens_per_step": TOKENS_PER_STEP,
            "train.dtype": "float32",
            "train.sample_answers": 0,
            "train.evaluate_every": STEPS,
            "data.eval_rows": 32,
            **case.changes,
        }
        if case.model:
            values["model.name"] = str(folder / case.model)
        overrides = [(key, json.dumps(value, ensure_ascii=False), "--set") for key, value in values.items()]
        lorakit.train(load(TABLES[case.family], overrides), run, force=True)
    if case.energy is None:
        return run
    if not cut.exists():
        lorakit.resize(str(run), cut, energy=case.energy)
    return cut


def proof(target: Path, to: str, dtype: str) -> Proof | LorakitError:
    """Return how an export compares, or why there is none."""
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        try:
            return lorakit.export(str(target), to, Path(place) / "written", dtype=dtype).proof
        except LorakitError as problem:
            return problem


def exact(found: Proof | LorakitError) -> str:
    """Return the largest difference as a share of the largest logit, and the share of texts that are the same."""
    if isinstance(found, LorakitError):
        return "-"
    share = found.largest_difference / found.largest_logit
    text = "" if found.same_text is None else f", {found.same_text:.0%}"
    return f"{share:.0e}{text}" if share else f"0{text}"


def rounded(found: Proof | LorakitError) -> str:
    """Return the change in loss."""
    return "-" if isinstance(found, LorakitError) else f"{found.loss_after / found.loss_before - 1:+.2%}"


def main(folder: Path, families: Sequence[str] = ()) -> None:
    """Print a line for each adapter, of all families where none is named, and why a target refused."""
    folder.mkdir(parents=True, exist_ok=True)
    llamas(folder)
    columns = EXACT | ROUNDED
    print(f"| adapter | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}")
    refused: dict[str, str] = {}
    for number, case in enumerate(CASES):
        if families and case.family not in families:
            continue
        target = adapter(case, number, folder)
        cells = []
        for name, (to, dtype) in columns.items():
            found = proof(target, to, dtype)
            cells.append(exact(found) if name in EXACT else rounded(found))
            if isinstance(found, LorakitError):
                refused.setdefault(f"--to {to}: {found}".replace(str(target), "it"), case.name)
        print(f"| {' | '.join([case.name, *cells])} |", flush=True)
    for reason, name in refused.items():
        print(f"\n{name}: {reason}")


if __name__ == "__main__":
    with quiet():
        main(Path(sys.argv[1]), sys.argv[2:])
