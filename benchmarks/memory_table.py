"""How much memory training takes on each GPU, from 1 to 64 of them, counted on models without memory (meta device).

python -m benchmarks.memory_table     # the table of docs/scaling.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorakit import families, methods
from lorakit.checkpoints.finding import find, quiet
from lorakit.methods.settings import FullSettings, LoraSettings
from lorakit.training import memory
from lorakit.training.precision import lower_frozen
from lorakit.types import Head

TOKENS = 2048
"""Tokens computed at once on each GPU."""
LEARNED = 0.5
"""Share of the tokens that are learned."""
WORLDS = (1, 8, 64)
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits of a weight in NF4 whose scales, one for 64 weights, are held in 8 bits (Dettmers et al. 2023,
arXiv:2305.14314, section 3)."""


def _llama(hidden: int, inner: int, layers: int, heads: int, vocabulary: int = 128_256, tied: bool = False) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )


def configs() -> dict[str, Any]:
    """Return the shapes of the table by name."""
    from transformers import GPT2Config

    tiny = find("tiny-gpt").config
    return {
        "tiny-gpt": GPT2Config(**tiny),
        "GPT-2": GPT2Config(),
        "Llama 3.2, 1 B": _llama(2048, 8192, 16, 32, tied=True),
        "Llama 3, 8 B": _llama(4096, 14336, 32, 32),
        "Llama 3, 70 B": _llama(8192, 28672, 80, 64),
    }


@dataclass(frozen=True)
class Need:
    """What a model and a method need, in bytes, before it is spread over GPUs."""

    parameters: int
    """Of the base."""
    weights: float
    learning: int
    """Gradients and both moments."""
    group: float
    """The largest group of weights that is gathered to compute."""
    kept: int
    """Activations of a micro-batch, all kept for the backward pass."""
    recomputed: int
    """The same with gradient checkpointing: the input of each block, and one block."""

    def each(self, world: int) -> float:
        """Return the bytes on each of `world` GPUs: its part, what is gathered, and the smaller activations.

        Two groups are gathered at once: the one that computes and the next.
        """
        gathered = 2 * self.group if world > 1 else 0
        return (self.weights + self.learning) / world + gathered + self.recomputed


def need(config: Any, method: str) -> Need:
    """Count what a model of this shape needs with `full`, `lora` (rank 8) or `qlora` (its base in NF4)."""
    from transformers import AutoModelForCausalLM

    family = families.of(config.model_type)
    with torch.device("meta"), quiet():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        parameters = sum(weight.numel() for weight in model.parameters())
        settings = FullSettings() if method == "full" else LoraSettings()
        model, _ = methods.load(settings.name)(model, settings, family, Head("causal_lm"))
    lower_frozen(model)
    layers = list(next(module for module in model.modules() if isinstance(module, nn.ModuleList)))
    inside = {id(weight) for layer in layers for weight in layer.parameters()}
    outside = [weight for weight in model.parameters() if id(weight) not in inside]

    def size(weight: nn.Parameter) -> float:
        quantised = method == "qlora" and weight.dtype == torch.bfloat16 and id(weight) in inside
        return weight.numel() * (NF4_BITS / 8 if quantised else weight.element_size())

    in_blocks = memory.per_token(config.to_dict(), 0, LEARNED, 2)
    scores = memory.per_token(config.to_dict(), config.vocab_size, LEARNED, 2) - in_blocks
    return Need(
        parameters=parameters,
        weights=sum(map(size, model.parameters())),
        learning=memory.gradients_and_moments(model),
        group=max(sum(map(size, layers[0].parameters())), max(map(size, outside))),
        kept=TOKENS * (in_blocks + scores),
        recomputed=TOKENS * (2 * config.hidden_size * len(layers) + in_blocks // len(layers) + scores),
    )


def rows(name: str, config: Any) -> list[str]:
    """Return the lines of one model in Markdown."""
    lines = []
    for method in ("full", "lora", "qlora"):
        found = need(config, method)
        # Weights in 4 bits are not cut: every GPU holds them all.
        worlds = [found.each(1 if method == "qlora" else world) for world in WORLDS]
        sizes = [found.weights, found.learning, found.kept, found.recomputed, *worlds]
        weights, learning, kept, recomputed, *each = map(_gigabytes, sizes)
        lines.append(f"| {' | '.join([name, method, weights, learning, kept, recomputed, *each])} |")
    return lines


def main() -> None:
    """Print the table."""
    print("| model | method | weights | gradients, moments | activations | recomputed | 1 GPU | 8 GPUs | 64 GPUs |")
    print(f"|{' --- |' * 9}")
    for name, config in configs().items():
        print("\n".join(rows(name, config)))


def _gigabytes(size: float) -> str:
    """Return a number of GB with two figures, or all before the point."""
    gigabytes = size / 1e9
    return f"{gigabytes:.3f}" if gigabytes < 0.1 else f"{gigabytes:.2f}" if gigabytes < 1 else f"{gigabytes:,.1f}"


if __name__ == "__main__":
    main()
