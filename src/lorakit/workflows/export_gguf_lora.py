"""A LoRA adapter alone as a GGUF file, compared on its base in llama.cpp."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters.bundle import open_target
from lorakit.adapters.export import gguf_file
from lorakit.adapters.export.gguf_architectures import numbers_of
from lorakit.adapters.parts import Parts, take_apart
from lorakit.checkpoints.folders import scratch_folder
from lorakit.errors import LorakitError
from lorakit.workflows import export_texts
from lorakit.workflows.export_gguf import Gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lorakit.adapters.export.llama_cpp import Model


class GgufLora(Gguf):
    """Writes the pairs alone; llama.cpp puts them on the GGUF file of the base (``--lora``)."""

    dtypes = ("float32", "bfloat16", "float16")

    def refuse(self) -> None:
        """Raise LorakitError for what is no pair of factors, besides what GGUF cannot hold at all."""
        if self.target.adapter is None:
            raise LorakitError(
                f"{self.order.name} is no LoRA adapter, and --to gguf-lora writes nothing else: use --to gguf, which "
                f"writes a whole model."
            )
        if self._parts.rest:
            raise LorakitError(
                f"llama.cpp puts pairs of factors on a base, and this adapter also holds {min(self._parts.rest)!r} "
                f"(DoRA, a trained head, or new tokens): use --to gguf, which merges it."
            )
        if any(layer.rsplit(".", 1)[-1] in ("lm_head", "embed_tokens", "wte", "wpe") for layer in self._parts.pairs):
            raise LorakitError("llama.cpp puts no pairs on embeddings and output layers: use --to gguf, which merges.")
        super().refuse()

    def write(self, place: Path) -> None:
        """Write the pairs, their scales in the second factor."""
        numbers = numbers_of(self._skeleton.config, self._architecture)
        gguf_file.write_adapter(
            place, self._parts.pairs, self._architecture, numbers, self.order.output.stem, self._dtype
        )

    @cached_property
    def _parts(self) -> Parts:
        assert self.target.adapter is not None
        return take_apart(self.target.folder, self.target.adapter)

    @property
    def _dtype(self) -> str:
        return self.order.dtype or "float32"

    def _untold(self) -> Iterator[str]:
        """Yield, besides, what the file of the base must know."""
        yield from super()._untold()
        # A base that was itself trained here has a file that begins texts, and stops, as that training did.
        base, tokenizer = open_target(str(self.target.base.folder)), self.target.tokenizer
        (before, _), (known, _) = export_texts.frame(self.target), export_texts.frame(base)
        if before != known:
            yield _beginning(bool(before), (before or known)[0], tokenizer)
        if self.target.eos_ids != base.eos_ids:
            ends = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(self._ends())))
            yield f"training taught to stop at {ends}, and the base's own file stops elsewhere: name it as a stop text."

    @contextlib.contextmanager
    def _loaded(self, place: Path, longest: int) -> Iterator[Model]:
        """Give the base, written in float32 beside the output, with what was written on it."""
        from lorakit.adapters.export.llama_cpp import RUNTIMES

        with scratch_folder(self.order.output) as scratch:
            base = scratch / "base.gguf"
            self._write_model(base, self.target.base.folder, "float32")
            with contextlib.closing(RUNTIMES[self._kind](base, longest, place)) as model:
                yield model


def _beginning(begins: bool, start: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """Say what makes llama.cpp put a start token before texts, or none, where the file of the base does otherwise."""
    overrides = [f"tokenizer.ggml.add_bos_token=bool:{str(begins).lower()}"]
    if begins and tokenizer.bos_token_id != start:
        overrides.append(f"tokenizer.ggml.bos_token_id=int:{start}")
    token = tokenizer.convert_ids_to_tokens(start)
    return (
        f"training put {token!r} before {'each text' if begins else 'no text'}, and the base's own file "
        f"{'does not' if begins else 'has it put before each'}: give llama.cpp "
        f"{' '.join(f'--override-kv {override}' for override in overrides)}."
    )
