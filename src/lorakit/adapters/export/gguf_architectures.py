"""What llama.cpp computes for each type of model: its name there, its numbers, and how its weights are laid out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
_GELU = ("gelu", *_TANH)
"""Of encoders: llama.cpp takes tanh's for the exact one."""
_EXACT = ("silu", "relu")
"""Activations that ggml computes in float32; GELU is looked up in a table of float16."""

_POSITIONS = "embeddings.position_embeddings.weight"
_DISTANCE = 128
"""Tokens from which on llama.cpp lets T5's distances share one number."""
_INNER = ("intermediate_size", "n_inner", "d_ff")
"""What configs call the width between the two layers of a block's MLP."""


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
    windows: int = 0
    """The last of so many layers attends to all, those before it to a window; 0: llama.cpp knows no windows there."""
    caps: bool = False
    """Whether the scores of attention and words are capped."""
    tokenizers: tuple[str, ...] = ("BPE",)
    """Kinds of tokenizers that its texts are cut by."""
    padded_positions: bool = False
    """Whether a text's first position comes behind the number of the padding (RoBERTa)."""
    unblocked: str = "F16"
    """Kind of the rows that ``q8_0`` cannot cut into blocks; activations of T5 outgrow float16."""


_LLAMA = Architecture("llama", ("silu",), neighbours=True)
_T5 = Architecture("t5", ("relu", "gated-gelu"), tokenizers=("Unigram",), unblocked="BF16")

ARCHITECTURES = {
    "gpt2": Architecture("gpt2", _TANH, transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight")),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture("qwen2", ("silu",)),
    "qwen3": Architecture("qwen3", ("silu",)),
    "gemma": Architecture("gemma", _TANH, norms_from_zero=True, output=False),
    "gemma2": Architecture("gemma2", _TANH, norms_from_zero=True, output=False, windows=2, caps=True),
    "gemma3_text": Architecture("gemma3", _TANH, norms_from_zero=True, output=False, windows=6),
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "bert": Architecture("bert", _GELU, tokenizers=("WordPiece",)),
    "roberta": Architecture("bert", _GELU, padded_positions=True),
    "xlm-roberta": Architecture("bert", _GELU, tokenizers=("Unigram",), padded_positions=True),
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
    """`rope_parameters` of the config, of layers that attend to all; None where positions are learned."""
    window_theta: float | None = None
    """Base of the rotary frequencies of layers that attend to a window, where it is another one (Gemma 3)."""
    first_position: int = 0
    """Row of the learned positions at which a text begins."""
    decoder_layers: int = 0
    """Of an encoder-decoder; `layers` are those of its encoder."""
    output_scale: float = 1.0
    """What the states of a T5 are multiplied by before its output layer."""


def numbers_of(config: Any, architecture: Architecture) -> Numbers:
    """Return the sizes of a model.

    Args:
        config: transformers' config, which knows every size by one name (`attribute_map`).
        architecture: Of its type.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    inner = next((size for name in _INNER if (size := getattr(config, name, None))), 4 * width)
    layers = getattr(config, "layer_types", None) or ("sliding_attention",)
    window = getattr(config, "sliding_window", None) if "sliding_attention" in layers else None
    # Nothing bounds the distances of a T5; this is the length that its authors trained on.
    first = config.pad_token_id + 1 if architecture.padded_positions else 0
    positions = (getattr(config, "max_position_embeddings", None) or 512) - first
    if window is not None and not architecture.windows:
        positions = min(positions, window)
    rope = getattr(config, "rope_parameters", None) or {}
    return Numbers(
        layers=config.num_hidden_layers,
        width=width,
        inner=inner,
        heads=heads,
        groups=getattr(config, "num_key_value_heads", None) or heads,
        head=getattr(config, "head_dim", None) or width // heads,
        positions=positions,
        window=window,
        rope=rope.get("full_attention", rope) or None,
        window_theta=rope["sliding_attention"]["rope_theta"] if "sliding_attention" in rope else None,
        first_position=first,
        decoder_layers=getattr(config, "num_decoder_layers", None) or 0,
        output_scale=width**-0.5 if _scales_output(config) else 1.0,
    )


def _scales_output(config: Any) -> bool:
    """Whether a T5 divides its last states by the root of their width, as those do that write with their embeddings."""
    if config.model_type == "t5":
        return bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))
    return config.model_type == "umt5" and config.tie_word_embeddings


def activation_of(config: Any) -> str | None:
    """Return the name of the activation between the layers of a block; of a T5, with whether it is gated."""
    names = ("feed_forward_proj", "hidden_activation", "hidden_act", "activation_function")
    return next((used for name in names if (used := getattr(config, name, None))), None)


def bound_of(config: Any) -> float:
    """Return the largest difference of two numbers in float32 that is rounding, as a share of the largest number."""
    return 1e-4 if activation_of(config) in _EXACT else 5e-3


def lacking(config: Any, architecture: Architecture) -> Iterator[str]:
    """Yield what a model computes and llama.cpp does not, each as the end of a sentence."""
    used = activation_of(config)
    if used not in architecture.activations:
        yield f"has {' or '.join(architecture.activations)} between the layers of a block, and this model {used}"
    if getattr(config, "scale_attn_by_inverse_layer_idx", False) or not getattr(config, "scale_attn_weights", True):
        yield "divides the scores of attention by the root of a head's width, and this model does not"
    if getattr(config, "add_cross_attention", False):
        yield "has no cross-attention there"
    if architecture.name == "bert" and config.is_decoder:
        yield "lets every token attend to all, and this model to those before it"
    if numbers_of(config, architecture).decoder_layers > config.num_hidden_layers:
        yield "has at most as many layers in a decoder as in its encoder, and this model more"
    if getattr(config, "relative_attention_max_distance", _DISTANCE) != _DISTANCE:
        yield f"tells distances up to {_DISTANCE} apart, and this model up to {config.relative_attention_max_distance}"
    numbers = numbers_of(config, architecture)
    rope = numbers.rope or {}
    if rope.get("rope_type", "default") not in ("default", "linear", "llama3"):
        yield f"is not known to scale positions as this model does ({rope['rope_type']})"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        yield "turns all numbers of a head by their position, and this model a part of them"
    if not architecture.output and not config.tie_word_embeddings:
        yield "has no output layer apart from the embeddings, which training has untied"
    if architecture.windows:
        yield from _lacking_windows(config, architecture, numbers)


def _lacking_windows(config: Any, architecture: Architecture, numbers: Numbers) -> Iterator[str]:
    every, caps = architecture.windows, (config.attn_logit_softcapping, config.final_logit_softcapping)
    pattern = ["sliding_attention" if layer % every else "full_attention" for layer in range(1, numbers.layers + 1)]
    if list(config.layer_types) != pattern:
        yield f"lets the last of {every} layers attend to all, those before it to a window, and this model others"
    # llama.cpp tells the largest model of each type by its layers, and scales that one alone by the width of the model.
    largest = {"gemma2": 46, "gemma3": 62}[architecture.name]
    scale = numbers.width // numbers.heads if numbers.layers == largest else numbers.head
    if config.query_pre_attn_scalar != scale:
        yield f"divides scores of attention by the root of {scale}, and this model of {config.query_pre_attn_scalar}"
    if architecture.caps and not all(caps):
        yield "caps the scores of attention and words, and this model does not"
    if not architecture.caps and any(caps):
        yield "does not cap the scores of attention and words, and this model does"
    turned = (config.rope_parameters.get("sliding_attention") or {}).get("rope_type", "default")
    if turned != "default":
        yield f"does not scale positions within windows, and this model does ({turned})"
    if getattr(config, "use_bidirectional_attention", False):
        yield "lets a token attend to those before it, and this model to those behind it too"


def is_kept(name: str, config: Any) -> bool:
    """Whether a stored tensor is a weight of its own: not a constant mask, nor a second copy of the embeddings."""
    constant = name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq", "embeddings.position_ids"))
    # The config of a T5 does not tell: its output layer stands alone where the two that are stored differ.
    copied = name == "lm_head.weight" and config.tie_word_embeddings and not config.is_encoder_decoder
    return not constant and not copied


def known_as(name: str, architecture: Architecture, classifies: bool) -> str | None:
    """Return what the `gguf` library calls a weight; None for one of BERT's that only heads read which GGUF lacks.

    Args:
        name: In the checkpoint.
        architecture: Of its model.
        classifies: Whether a layer on the pooled first token scores labels.
    """
    if architecture.name != "bert":
        return name
    # Old files call a norm's weight and bias gamma and beta.
    name = name.removeprefix("bert.").removeprefix("roberta.")
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    if name.startswith(("cls.", "lm_head.")):
        return None
    if name in ("classifier.weight", "classifier.bias"):
        return name.replace("classifier.", "classifier.out_proj.")
    if name.startswith("pooler."):
        return name.replace("pooler.", "classifier.") if classifies else None
    return name


def shape_of(name: str, shape: tuple[int, ...], architecture: Architecture, numbers: Numbers) -> tuple[int, ...]:
    """Return the shape of what `laid_out` returns, of a tensor's name and shape in the checkpoint."""
    if name.endswith(architecture.transposed):
        return shape[::-1]
    return (numbers.positions, *shape[1:]) if name.endswith(_POSITIONS) else shape


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
    if name.endswith(_POSITIONS):
        return tensor[numbers.first_position :]
    if name == "decoder.final_layer_norm.weight":
        return tensor * numbers.output_scale
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
