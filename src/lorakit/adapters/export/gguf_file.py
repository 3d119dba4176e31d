"""One model as a GGUF file: written tensor by tensor by the `gguf` library.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit import __version__
from lorakit.adapters.export import gguf_sizes
from lorakit.adapters.export.gguf_architectures import (
    Architecture,
    Numbers,
    is_kept,
    known_as,
    laid_out,
    numbers_of,
    rope_factors,
    shape_of,
)
from lorakit.adapters.export.gguf_vocabulary import Vocabulary
from lorakit.adapters.surgery import Pair
from lorakit.checkpoints import weights
from lorakit.checkpoints.weights import Place
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

_KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
_FILE_TYPES = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}

_ORIGIN = "lorakit.version"
"""Key by which a file tells that it was written here."""
_BLOCK = 32
"""Numbers of a row that ``q8_0`` rounds together."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a file says about text, besides its vocabulary."""

    name: str
    bos_id: int | None
    begins: bool
    """Whether a start token stands before a text."""
    ends: bool
    """Whether the first of `eos_ids` stands behind a text that is read."""
    eos_ids: Sequence[int]
    """Tokens that end an answer, that of the tokenizer first."""
    pad_id: int | None
    unknown_id: int | None
    chat_template: str | None
    separator_id: int | None = None
    mask_id: int | None = None
    labels: Sequence[str] = ()
    """Names of the classes, in the order of their scores, of a model that scores whole texts."""


def write(
    file: Path, source: Path, config: Any, architecture: Architecture, vocabulary: Vocabulary, words: Words, dtype: str
) -> None:
    """Write a whole model as a GGUF file, one tensor in memory at a time.

    Matrices are stored in `dtype`, all else in float32; rows that ``q8_0`` cannot cut into blocks have 16 bits.

    Args:
        file: Written in place; call it inside `folders.whole_file`.
        source: Model folder.
        config: transformers' config of it.
        architecture: Of its type.
        vocabulary: Of its tokenizer.
        words: What else is said about text.
        dtype: ``float32``, ``float16``, ``bfloat16`` or ``q8_0``.

    Raises:
        CheckpointError: llama.cpp has no place for a tensor.
    """
    import gguf

    numbers = numbers_of(config, architecture)
    writer = gguf.GGUFWriter(file, architecture.name)
    try:
        gguf_sizes.say(writer, config, numbers, architecture, words.labels)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[dtype]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_string(_ORIGIN, __version__)
        _say_words(writer, vocabulary, words)
        places, names = _places(source, config, numbers, architecture, bool(words.labels))
        _write_tensors(writer, places, names, config, numbers, architecture, dtype)
    finally:
        writer.close()


def is_own(file: Path) -> bool:
    """Return whether lorakit wrote a file as GGUF."""
    import gguf

    try:
        return _ORIGIN in gguf.GGUFReader(file).fields
    # What is no GGUF, or is cut short, is read until something does not fit.
    except (ValueError, IndexError, KeyError, OSError, OverflowError):
        return False


def _say_words(writer: GGUFWriter, vocabulary: Vocabulary, words: Words) -> None:
    writer.add_name(words.name)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
        writer.add_remove_extra_whitespaces(vocabulary.merges_spaces)
    if vocabulary.charsmap is not None:
        writer.add_precompiled_charsmap(vocabulary.charsmap)
    if vocabulary.model == "bert":
        # The `gguf` library has no names for these.
        writer.add_bool("tokenizer.ggml.normalizer.lowercase", vocabulary.lowers)
        writer.add_bool("tokenizer.ggml.normalizer.strip_accents", vocabulary.strips_accents)
    ends = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    said = (
        (writer.add_bos_token_id, words.bos_id),
        (writer.add_pad_token_id, words.pad_id),
        (writer.add_unk_token_id, words.unknown_id),
        (writer.add_sep_token_id, words.separator_id),
        (writer.add_mask_token_id, words.mask_id),
        *zip(ends, words.eos_ids, strict=False),
    )
    for say, number in said:
        if number is not None:
            say(number)
    writer.add_add_bos_token(words.begins)
    writer.add_add_eos_token(words.ends)
    if words.chat_template is not None:
        writer.add_chat_template(words.chat_template)


def _places(
    source: Path, config: Any, numbers: Numbers, architecture: Architecture, classifies: bool
) -> tuple[dict[str, Place], dict[str, str]]:
    """Return, by their names in a checkpoint, where the weights are that GGUF holds, and what it calls them."""
    stored = {name: place for name, place in weights.layout(source).items() if is_kept(name, config)}
    shared = stored.get("shared.weight")
    if shared is not None:
        further = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
        stored = {
            name: place for name, place in stored.items() if name not in further or not place.holds_the_same(shared)
        }
    known = names_of(architecture, numbers)
    called = {name: known_as(name, architecture, classifies) for name in stored}
    names = {
        name: known.get_name(call, try_suffixes=(".weight", ".bias"))
        for name, call in called.items()
        if call is not None
    }
    lost = sorted(name for name, told in names.items() if told is None)
    if lost:
        raise CheckpointError(f"llama.cpp's {architecture.name} has no place for {lost[0]!r} ({len(lost)} tensors).")
    return {name: stored[name] for name in names}, names


def _write_tensors(
    writer: GGUFWriter,
    places: Mapping[str, Place],
    names: Mapping[str, str],
    config: Any,
    numbers: Numbers,
    architecture: Architecture,
    dtype: str,
) -> None:
    import gguf
    import numpy

    kinds = {}
    for name, place in places.items():
        shape = shape_of(name, place.info.shape, architecture, numbers)
        kinds[name] = _kind(names[name], shape, dtype, architecture.unblocked)
        bytes_of_a_row = gguf.quant_shape_to_byte_shape(shape, kinds[name])
        size = int(numpy.prod(bytes_of_a_row))
        writer.add_tensor_info(names[name], shape, numpy.dtype("float32"), size, raw_dtype=kinds[name])
    factors = rope_factors(config, numbers)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, numpy.dtype("float32"), 4 * factors.numel())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, place in places.items():
        tensor = laid_out(name, place.read().float(), architecture, numbers)
        writer.write_tensor_data(gguf.quantize(tensor.contiguous().numpy(), kinds[name]))
    if factors is not None:
        writer.write_tensor_data(factors.numpy())


def names_of(architecture: Architecture, numbers: Numbers) -> Any:
    """Return the `gguf` library's map from names in checkpoints to names in GGUF."""
    import gguf

    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)
    return gguf.get_tensor_name_map(number, max(numbers.layers, numbers.decoder_layers))


def _kind(name: str, shape: Sequence[int], dtype: str, unblocked: str) -> GGMLQuantizationType:
    """Return how a tensor is stored."""
    import gguf

    if len(shape) < 2 or name.startswith(("position_embd", "token_types")) or "attn_rel_b" in name:
        return gguf.GGMLQuantizationType.F32
    if dtype == "q8_0" and shape[-1] % _BLOCK:
        return gguf.GGMLQuantizationType[unblocked]
    return gguf.GGMLQuantizationType[_KINDS[dtype]]


def write_adapter(
    file: Path, pairs: Mapping[str, Pair], architecture: Architecture, numbers: Numbers, name: str, dtype: str
) -> None:
    """Write LoRA pairs as a GGUF file that llama.cpp puts on their base.

    Scales are in the second factor; an alpha of 0 tells llama.cpp to add none.

    Args:
        file: Written in place; call it inside `folders.whole_file`.
        pairs: By the base's name of the layer.
        architecture: Of the base.
        numbers: Of the base.
        name: What the file calls itself.
        dtype: ``float32``, ``float16`` or ``bfloat16``.

    Raises:
        CheckpointError: llama.cpp has no place for a layer.
    """
    import gguf

    writer = gguf.GGUFWriter(file, architecture.name)
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(_ORIGIN, __version__)
        writer.add_name(name)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
        known = names_of(architecture, numbers)
        kind = gguf.GGMLQuantizationType[_KINDS[dtype]]
        for layer, pair in pairs.items():
            place = known.get_name(known_as(layer, architecture, classifies=False))
            if place is None:
                raise CheckpointError(f"llama.cpp's {architecture.name} has no place for {layer!r}.")
            up_OR = laid_out(f"{layer}.lora", pair.up_OR.float() * pair.scale, architecture, numbers)
            for end, factor in (("lora_a", pair.down_RI.float()), ("lora_b", up_OR)):
                stored = gguf.quantize(factor.contiguous().numpy(), kind)
                writer.add_tensor(f"{place}.weight.{end}", stored, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
