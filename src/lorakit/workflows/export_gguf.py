"""A merged model as a GGUF file, compared in llama.cpp itself."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters.edits import edits_of
from lorakit.adapters.export import gguf_file
from lorakit.adapters.export.gguf_architectures import ARCHITECTURES, Architecture, bound_of, lacking, numbers_of
from lorakit.adapters.export.gguf_vocabulary import Vocabulary, vocabulary_of
from lorakit.adapters.merging import fold
from lorakit.checkpoints import finding, ties
from lorakit.checkpoints.folders import scratch_folder
from lorakit.checkpoints.locating import Located
from lorakit.errors import LorakitError
from lorakit.families import Kind
from lorakit.types import HeadTask
from lorakit.workflows import export_texts
from lorakit.workflows.export_agreement import NEW_TOKENS, Agreement, agree
from lorakit.workflows.export_gguf_notes import untold
from lorakit.workflows.export_order import Order, Proof
from lorakit.workflows.probing import Probes, probes_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lorakit.adapters.export.llama_cpp import Model

_HEADS: dict[Kind, tuple[HeadTask, ...]] = {
    "decoder": ("causal_lm",),
    "encoder": ("masked_lm", "masked_lm_nsp", "sequence_classification"),
    "encoder_decoder": ("seq2seq_lm",),
}
"""Kind of model -> what its head may be about; the words of a masked text are left out of the file."""

_LOSS_BOUND = 0.1
"""Share of the loss by which rounding to fewer bits may change it; more is another model."""


class Gguf:
    """Writes one GGUF file that llama.cpp, and what is built on it, loads."""

    folder = False
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16", "q8_0")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.target = order.target

    def refuse(self) -> None:
        """Raise LorakitError for what llama.cpp has no place for, or cannot be proved here."""
        if self.order.shard_size is not None:
            raise LorakitError("--shard-size is for --to safetensors: GGUF is one file; leave it out.")
        if self.target.head.task not in _HEADS[self._kind]:
            raise LorakitError(
                f"llama.cpp has no place for a head for {self.target.head.task}, which {self.order.name} has: use --to "
                f"onnx or --to safetensors."
            )
        faults = list(lacking(self._skeleton.config, self._architecture))
        if not self._architecture.output and self._unties():
            faults.append("has no output layer apart from the embeddings, and training changed one of the two")
        if self._kind == "decoder" and self._positions <= NEW_TOKENS:
            faults.append(f"does not attend to windows, and this model to one of {self._positions} tokens")
        if faults:
            raise LorakitError(f"llama.cpp {faults[0]}: what it computes would differ. Use --to safetensors.")
        _ = self._vocabulary
        self._frame()
        if self._kind == "encoder":
            self._check_pairs()
        _check_installed()
        _check_replaced(self.order.output)

    def write(self, place: Path) -> None:
        """Fold the adapter in beside the output, and write what comes of it."""
        with self._merged() as source:
            self._write_model(place, source, self._dtype)

    def _write_model(self, place: Path, source: Path, dtype: str) -> None:
        whole = finding.open_folder(Located(source, f"local:{self.order.output.stem}"))
        config = whole.skeleton(self.target.head).config
        gguf_file.write(place, source, config, self._architecture, self._vocabulary, self._words(), dtype)

    def verify(self, place: Path) -> Proof:
        """Load the file in llama.cpp: it must cut text, score, stop and write as the target does."""
        longest = max(len(example) for example in self._probes.examples) + NEW_TOKENS
        if self._kind != "encoder_decoder":
            longest = min(self._positions, longest)
        with self._loaded(place, longest) as model:
            self._check_words(model)
            agreement = agree(self.target, self._probes, model, longest, self._bound)
        self._check(agreement)
        compared = "numbers of vectors" if self.target.head.task.startswith("masked_lm") else "logits"
        return agreement.proof(model.name, self._dtype, self._probes, self._untold(), compared)

    @contextlib.contextmanager
    def _loaded(self, place: Path, longest: int) -> Iterator[Model]:
        """Give what was written, loaded by llama.cpp."""
        from lorakit.adapters.export.llama_cpp import RUNTIMES

        with contextlib.closing(RUNTIMES[self._kind](place, longest)) as model:
            yield model

    @cached_property
    def _architecture(self) -> Architecture:
        found = ARCHITECTURES.get(self.target.base.family.model_type)
        if found is None:
            raise LorakitError(
                f"--to gguf knows models of type {', '.join(ARCHITECTURES)}, and {self.order.name} is of type "
                f"{self.target.base.family.model_type}. Use --to safetensors."
            )
        return found

    @property
    def _kind(self) -> Kind:
        return self.target.base.family.kind

    @cached_property
    def _probes(self) -> Probes:
        return probes_for(self.target, self.order.data)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return vocabulary_of(self.target.tokenizer, self._rows, self._architecture.tokenizers)

    @property
    def _bound(self) -> float:
        return bound_of(self._skeleton.config)

    @cached_property
    def _skeleton(self) -> PreTrainedModel:
        return self.target.base.skeleton(self.target.head)

    @property
    def _rows(self) -> int:
        return int(self._skeleton.get_input_embeddings().weight.shape[0])

    @property
    def _positions(self) -> int:
        return numbers_of(self._skeleton.config, self._architecture).positions

    @property
    def _dtype(self) -> str:
        stored = self.target.base.stored_dtype
        return self.order.dtype or (stored if stored in self.dtypes else "float32")

    @property
    def _is_whole(self) -> bool:
        return self.target.form not in ("lora", "changed")

    def _unties(self) -> bool:
        """Whether folding the adapter in makes two tensors of embeddings and output layer."""
        return not self._is_whole and ties.must_untie(self._skeleton, edits_of(self.target, self._skeleton))

    @contextlib.contextmanager
    def _merged(self) -> Iterator[Path]:
        """Give a folder with all weights: the target's own, or one into which the adapter is folded."""
        if self._is_whole:
            yield self.target.base.folder
            return
        with scratch_folder(self.order.output) as scratch:
            fold(self.target, scratch, None if self._dtype == self.target.base.stored_dtype else "float32")
            yield scratch

    def _frame(self) -> tuple[list[int], list[int]]:
        """Return what stands before a text and behind it, a token each at most."""
        before, behind = export_texts.frame(self.target)
        if self._kind == "encoder" and not (before and behind):
            raise LorakitError("llama.cpp puts a token before a text and one behind it, and this tokenizer does not.")
        return before, behind

    def _check_pairs(self) -> None:
        """Raise LorakitError where two texts are told apart by token types."""
        if self.target.head.task == "sequence_classification" and any(
            example.segments is not None and example.segments.any() for example in self._probes.examples
        ):
            raise LorakitError(
                "llama.cpp reads every token as one of the first text, and this model tells two texts apart: use --to "
                "onnx or --to safetensors."
            )

    def _ends(self) -> list[int]:
        """Return the tokens that end an answer, the tokenizer's first; GGUF has three places."""
        own = self.target.tokenizer.eos_token_id
        return sorted(self.target.eos_ids, key=lambda token: (token != own, token))[:3]

    def _words(self) -> gguf_file.Words:
        tokenizer, (before, behind) = self.target.tokenizer, self._frame()
        separates = self._vocabulary.model == "bert"
        template = self.target.style.chat_template or tokenizer.chat_template
        return gguf_file.Words(
            name=self.order.output.stem,
            bos_id=before[0] if before else tokenizer.bos_token_id,
            begins=bool(before),
            ends=bool(behind) and not separates,
            eos_ids=behind if self._kind == "encoder" and not separates else self._ends(),
            pad_id=tokenizer.pad_token_id,
            unknown_id=tokenizer.unk_token_id,
            chat_template=template if isinstance(template, str) else None,
            separator_id=behind[0] if separates else None,
            mask_id=tokenizer.mask_token_id,
            labels=self.target.head.labels,
        )

    def _check_words(self, model: Model) -> None:
        """Raise LorakitError where llama.cpp cuts a text otherwise, or goes on behind a token that ends answers."""
        tokenizer = self.target.tokenizer
        texts = [*export_texts.TEXTS, " ".join(tokenizer.convert_ids_to_tokens(self.target.base.new_rows))]
        for text, expected in zip(texts, export_texts.as_read(self.target, texts), strict=True):
            # Letters taken apart stay so: this is what `_untold` asks for.
            given = unicodedata.normalize("NFD", text) if self._vocabulary.decomposes else text
            if model.ids(given) != expected:
                raise LorakitError(
                    f"llama.cpp cuts {text!r} into other tokens than this tokenizer, so that the model would read "
                    f"what it was not trained on. Use --to safetensors."
                )
        deaf = [] if self._kind == "encoder" else [token for token in self._ends() if not model.ends(token)]
        if deaf:
            raise LorakitError(f"llama.cpp does not stop at token {deaf[0]}, which ends answers. Use --to safetensors.")

    def _check(self, agreement: Agreement) -> None:
        """Raise LorakitError where llama.cpp says something else than the target."""
        if self._dtype == "float32":
            agreement.check_exact(self._bound, "llama.cpp")
            return
        moved = abs(agreement.loss_after - agreement.loss_before) / max(agreement.loss_before, 1e-3)
        if not moved <= _LOSS_BOUND:
            raise LorakitError(
                f"in {self._dtype}, llama.cpp loses what was learned: the loss goes from "
                f"{agreement.loss_before:.4f} to {agreement.loss_after:.4f}. Export with --dtype f32."
            )

    def _untold(self) -> Iterator[str]:
        """Yield what a GGUF file has no place for, and whoever uses it must know."""
        return untold(self.target, self._vocabulary, len(self._ends()), self._positions)


def _check_installed() -> None:
    missing = [name for name in ("gguf", "llama_cpp") if find_spec(name) is None]
    if missing:
        raise LorakitError(
            f"--to gguf needs {' and '.join(missing)}, to write the file and to read it back: pip install "
            f"'lorakit[export]' (llama.cpp is compiled on the way: minutes, with cmake and a C++ compiler)."
        )


def _check_replaced(output: Path) -> None:
    """Raise LorakitError where --force would replace a file that lorakit did not write."""
    if output.is_file() and not gguf_file.is_own(output):
        raise LorakitError(f"{output} is no GGUF file that lorakit wrote, so it is not replaced; give another name.")
