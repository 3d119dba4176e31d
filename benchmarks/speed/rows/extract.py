"""A LoRA adapter drawn from what training made of a model of 1 GB."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed import materials
from benchmarks.speed.row import TINY, Arm, Outcome, Row, Stopwatch
from benchmarks.speed.rows import merge

RANKS = (4, 16, 64)
ENERGY = 0.9
CHANGED = 16 if TINY else 128
"""Rank of what training changed in each matrix."""


def tuned(root: Path) -> Path:
    """Return the folder of the same Llama after a training that moved every matrix product."""

    def write(folder: Path) -> None:
        import torch
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(merge.base(root))
        torch.manual_seed(2)
        # Singular values that fall as 1 / sqrt(k): no rank below the last one holds nearly all.
        falling_R = torch.arange(1, CHANGED + 1).rsqrt()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    rows, columns = module.weight.shape
                    up_OR = torch.randn(rows, CHANGED) * falling_R
                    module.weight.addmm_(up_OR, torch.randn(CHANGED, columns), alpha=1e-3)
        model.save_pretrained(folder, max_shard_size="250MB")
        materials.tokenizer("gpt2").save_pretrained(folder)

    return materials.made(root / f"llama-{merge.LAYERS}x{merge.WIDTH}-tuned", write)


def prepare(root: Path) -> None:
    """Write base and tuned model."""
    tuned(root)


def plainly(root: Path) -> Outcome:
    """Load both models, and take each difference apart by `torch.linalg.svd`."""
    import torch
    import transformers
    import transformers.models.llama.modeling_llama
    from safetensors.torch import save_file

    def extract(output: Path) -> None:
        before, after = (
            transformers.AutoModelForCausalLM.from_pretrained(place(root)) for place in (merge.base, tuned)
        )
        layers: dict[str, Any] = dict(before.named_modules())
        pairs = {}
        with torch.no_grad():
            for name, module in after.named_modules():
                if isinstance(module, torch.nn.Linear):
                    left, values, right = torch.linalg.svd(module.weight - layers[name].weight, full_matrices=False)
                    pairs[f"{name}.lora_B.weight"] = (left[:, :16] * values[:16]).contiguous()
                    pairs[f"{name}.lora_A.weight"] = right[:16].contiguous()
        save_file(pairs, output)

    return _measured(extract, root)


def with_lorakit(root: Path, **how: Any) -> Outcome:
    """Run the verb at a rank, or at a share of the squared change."""
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    from lorakit.workflows.extracting import extract as verb

    def extract(output: Path) -> None:
        verb(str(tuned(root)), output, base=str(merge.base(root)), **how)

    return _measured(extract, root)


def _measured(extract: Callable[[Path], None], root: Path) -> Outcome:
    with tempfile.TemporaryDirectory(dir=root) as place:
        watch = Stopwatch()
        watch.start()
        extract(Path(place) / "adapter")
        watch.stop()
        return watch.outcome(1, above_imports=True)


ROWS = (
    Row(
        name="extract",
        title="A LoRA from a wholly trained model",
        work=(
            "Two Llamas of 1.07 GB in float32 (12 × 1024, five files each), apart by a change of rank 128 in all 85 "
            "matrix products, whose singular values fall as 1/√k: from files to an adapter on disk, imports left out."
        ),
        arms=(
            Arm("both loaded, torch.linalg.svd, rank 16", plainly),
            *(Arm(f"lorakit adapter extract --rank {rank}", partial(with_lorakit, rank=rank)) for rank in RANKS),
            Arm(f"lorakit adapter extract --energy {ENERGY}", partial(with_lorakit, energy=ENERGY)),
        ),
        prepare=prepare,
        aim="less than 200 MB above the imports.",
    ),
)
