"""What a GGUF file says of a model's sizes, in the order and under the names that its architecture has there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorakit.adapters.export.gguf_architectures import Architecture, Numbers

if TYPE_CHECKING:
    from gguf import GGUFWriter


def say(
    writer: GGUFWriter, config: Any, numbers: Numbers, architecture: Architecture, labels: Sequence[str] = ()
) -> None:
    """Say how large a model is, and how it attends.

    Args:
        writer: Of the file.
        config: transformers' config of the model.
        numbers: Of the model.
        architecture: Of the model.
        labels: Of an encoder that scores whole texts.
    """
    import gguf

    writer.add_block_count(numbers.layers)
    writer.add_context_length(numbers.positions)
    writer.add_embedding_length(numbers.width)
    writer.add_feed_forward_length(numbers.inner)
    writer.add_head_count(numbers.heads)
    if architecture.name == "t5":
        _say_distances(writer, config, numbers)
        return
    if architecture.name == "bert":
        _say_pooling(writer, config, labels)
        return
    if numbers.rope is None:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_head_count_kv(numbers.groups)
    writer.add_key_length(numbers.head)
    writer.add_value_length(numbers.head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(numbers.head)
    writer.add_rope_freq_base(numbers.rope["rope_theta"])
    if numbers.rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(numbers.rope["factor"])
    if architecture.windows:
        writer.add_sliding_window(numbers.window or numbers.positions)
    if numbers.window_theta is not None:
        writer.add_float32(f"{architecture.name}.rope.freq_base_swa", numbers.window_theta)
    if architecture.caps:
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _say_distances(writer: GGUFWriter, config: Any, numbers: Numbers) -> None:
    """Say what an encoder-decoder that counts distances has besides."""
    writer.add_decoder_block_count(numbers.decoder_layers)
    writer.add_decoder_start_token_id(config.decoder_start_token_id)
    writer.add_key_length(numbers.head)
    writer.add_value_length(numbers.head)
    writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
    writer.add_relative_attn_buckets_count(config.relative_attention_num_buckets)


def _say_pooling(writer: GGUFWriter, config: Any, labels: Sequence[str]) -> None:
    """Say that tokens attend to both sides, and what a text becomes: scores of labels, or the mean of its vectors."""
    import gguf

    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_token_type_count(config.type_vocab_size)
    writer.add_pooling_type(gguf.PoolingType.RANK if labels else gguf.PoolingType.MEAN)
    if labels:
        writer.add_classifier_output_labels(labels)
