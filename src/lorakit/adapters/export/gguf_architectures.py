"""What llama.cpp computes for each type of model: its name there, its numbers, and how its weights are laid out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


@dataclass(frozen=True, slots=True)
class Architecture:
    """One type of model as llama.cpp has it."""

    name: str
    """Its name in GGUF."""
    activations: tuple[str, ...]
    """Names in config.json of the activation that llama.cpp computes."""
    neighbours: bool = False
    """Whether rotary positions turn neighbouring numbers of a head; transformers turns the two halves of it."""
    norms_from_zero: bool = False
    """Whether checkpoints store the weight of a norm less one (Gemma)."""
    transposed: tuple[str, ...] = ()
    """Ends of the names of weights of shape (in, out), which are (out, in) elsewhere (GPT-2's Conv1D)."""
    output: bool = True
    """Whether there is an output layer apart from the embeddings."""
    windows: bool = False
    """Whether every second layer, from the first, attends to a window alone, and scores are capped."""

    @property
    def bound(self) -> float:
        """Largest difference of two logits in float32 that is rounding, as a share of the largest logit.

        GELU is looked up in a table of float16 by ggml.
        """
        return 1e-4 if self.activations == ("silu",) else 5e-3


_LLAMA = Architecture("llama", ("silu",), neighbours=True)

ARCHITECTURES = {
    "gpt2": Architecture("gpt2", _TANH, transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight")),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture("qwen2", ("silu",)),
    "qwen3": Architecture("qwen3", ("silu",)),
    "gemma": Architecture("gemma", _TANH, norms_from_zero=True, output=False),
    "gemma2": Architecture("gemma2", _TANH, norms_from_zero=True, output=False, windows=True),
}
"""`model_type` of config.json -> what llama.cpp has of it."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Sizes of a model, read from its config under whatever name its type gives them."""

    layers: int
    width: int
    inner: int
    """Width between the two layers of a block's MLP."""
    heads: int
    groups: int
    """Heads of keys and values."""
    head: int
    """Numbers of a head."""
    positions: int
    """Longest text, in tokens, that llama.cpp computes as transformers does."""
    window: int | None
    """Tokens that a layer attends to where it does not attend to all."""
    rope: dict[str, Any] | None
    """`rope_parameters` of the config; None where positions are learned."""


def numbers_of(config: Any, architecture: Architecture) -> Numbers:
    """Return the sizes of a model.

    Args:
        config: transformers' config, which knows every size by one name (`attribute_map`).
        architecture: Of its type.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
    layers = getattr(config, "layer_types", None) or ("sliding_attention",)
    window = getattr(config, "sliding_window", None) if "sliding_attention" in layers else None
    positions = config.max_position_embeddings
    if window is not None and not architecture.windows:
        positions = min(positions, window)
    return Numbers(
        layers=config.num_hidden_layers,
        width=width,
        inner=inner,
        heads=heads,
        groups=getattr(config, "num_key_value_heads", None) or heads,
        head=getattr(config, "head_dim", None) or width // heads,
        positions=positions,
        window=window,
        rope=getattr(config, "rope_parameters", None),
    )


def lacking(config: Any, architecture: Architecture) -> Iterator[str]:
    """Yield what a model computes and llama.cpp does not, each as the end of a sentence."""
    used = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    used = used or getattr(config, "activation_function", None)
    if used not in architecture.activations:
        yield f"has {' or '.join(architecture.activations)} between the layers of a block, and this model {used}"
    if getattr(config, "scale_attn_by_inverse_layer_idx", False) or not getattr(config, "scale_attn_weights", True):
        yield "divides the scores of attention by the root of a head's width, and this model does not"
    if getattr(config, "add_cross_attention", False):
        yield "has no cross-attention there"
    numbers = numbers_of(config, architecture)
    rope = numbers.rope or {}
    if rope.get("rope_type", "default") not in ("default", "linear", "llama3"):
        yield f"is not known to scale positions as this model does ({rope['rope_type']})"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        yield "turns all numbers of a head by their position, and this model a part of them"
    if not architecture.output and not config.tie_word_embeddings:
        yield "has no output layer apart from the embeddings, which training has untied"
    if architecture.windows:
        yield from _lacking_windows(config, numbers)


def _lacking_windows(config: Any, numbers: Numbers) -> Iterator[str]:
    pattern = ["sliding_attention" if layer % 2 == 0 else "full_attention" for layer in range(numbers.layers)]
    if list(config.layer_types) != pattern:
        yield "lets every second layer attend to a window, from the first, and this model others"
    # llama.cpp tells the largest Gemma 2 by its layers, and scales that one alone by the width of the model.
    scale = numbers.width // numbers.heads if numbers.layers == 46 else numbers.head
    if config.query_pre_attn_scalar != scale:
        yield f"divides scores of attention by the root of {scale}, and this model of {config.query_pre_attn_scalar}"
    if not (config.attn_logit_softcapping and config.final_logit_softcapping):
        yield "caps the scores of attention and words, and this model does not"


def is_kept(name: str, config: Any) -> bool:
    """Whether a stored tensor is a weight of its own: not a constant mask, nor a second copy of the embeddings."""
    constant = name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"))
    return not constant and not (name == "lm_head.weight" and config.tie_word_embeddings)


def laid_out(name: str, tensor: Tensor, architecture: Architecture, numbers: Numbers) -> Tensor:
    """Return a weight as llama.cpp keeps it.

    Args:
        name: In the checkpoint.
        tensor: In float32, as the checkpoint stores it.
        architecture: Of its model.
        numbers: Of its model.
    """
    if name.endswith(architecture.transposed):
        return tensor.T
    if architecture.norms_from_zero and name.endswith("norm.weight"):
        return tensor + 1
    if architecture.neighbours:
        for layer, heads in (("q_proj", numbers.heads), ("k_proj", numbers.groups)):
            if f".{layer}." in name:
                # Of a head's rows, number i of the first half comes to stand beside number i of the second one.
                halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
                return halves.transpose(1, 2).reshape(tensor.shape)
    return tensor


def rope_factors(config: Any, numbers: Numbers) -> Tensor | None:
    """Return by how much Llama 3 slows each rotary frequency, shape (head / 2,); None where nothing is slowed so."""
    if numbers.rope is None or numbers.rope.get("rope_type") != "llama3":
        return None
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(0, numbers.head, 2, dtype=torch.float32) / numbers.head
    return numbers.rope["rope_theta"] ** -exponents / slowed
