"""A merged model as a GGUF file, compared in llama.cpp itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters.edits import edits_of
from lorakit.adapters.export import gguf_file
from lorakit.adapters.export.gguf_architectures import ARCHITECTURES, Architecture, lacking, numbers_of
from lorakit.adapters.export.gguf_vocabulary import vocabulary_of
from lorakit.adapters.merging import fold
from lorakit.checkpoints import finding, ties
from lorakit.checkpoints.folders import scratch_folder
from lorakit.checkpoints.locating import Located
from lorakit.data.encoding import TextEncoder
from lorakit.errors import LorakitError
from lorakit.workflows.export_agreement import NEW_TOKENS, Agreement, agree
from lorakit.workflows.export_order import Order, Proof
from lorakit.workflows.probing import SENTENCES, Probes, probes_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lorakit.adapters.export.llama_cpp import Model

_TEXTS = (*SENTENCES, "It's 1,024 + 7 = 1031!  Two\n\nlines,\tand a tab: (naïve) 'quotes' — ça va? 😀")
"""Texts that both tokenizers must cut alike."""

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
        """Raise LorakitError for what is no decoder of llama.cpp, or cannot be proved here."""
        if self.order.shard_size is not None:
            raise LorakitError("--shard-size is for --to safetensors: GGUF is one file; leave it out.")
        _check_replaced(self.order.output)
        if self.target.head.task != "causal_lm":
            raise LorakitError(
                f"GGUF holds models that write text, and {self.order.name} has a head for {self.target.head.task}: "
                f"use lorakit merge, and lorakit predict or transformers."
            )
        faults = list(lacking(self._skeleton.config, self._architecture))
        if not self._architecture.output and self._unties():
            faults.append("has no output layer apart from the embeddings, and training changed one of the two")
        if self._positions <= NEW_TOKENS:
            faults.append(f"does not attend to windows, and this model to one of {self._positions} tokens")
        if faults:
            raise LorakitError(f"llama.cpp {faults[0]}: what it computes would differ. Use --to safetensors.")
        vocabulary_of(self.target.tokenizer, self._rows)
        self._starts()
        _check_installed()

    def write(self, place: Path) -> None:
        """Fold the adapter in beside the output, and write what comes of it."""
        with self._merged() as source:
            self._write_model(place, source, self._dtype)

    def _write_model(self, place: Path, source: Path, dtype: str) -> None:
        whole = finding.open_folder(Located(source, f"local:{self.order.output.stem}"))
        config = whole.skeleton(self.target.head).config
        vocabulary = vocabulary_of(self.target.tokenizer, self._rows)
        gguf_file.write(place, source, config, self._architecture, vocabulary, self._words(), dtype)

    def verify(self, place: Path) -> Proof:
        """Load the file in llama.cpp: it must cut text, score, stop and write as the target does."""
        probes = probes_for(self.target, self.order.data)
        longest = min(self._positions, max(len(example.ids) for example in probes.examples) + NEW_TOKENS)
        with self._loaded(place, longest) as model:
            self._check_words(model)
            agreement = agree(self.target, probes, model, longest, self._architecture.bound)
        self._check(agreement)
        return self._proof(model.name, probes, agreement)

    @contextlib.contextmanager
    def _loaded(self, place: Path, longest: int) -> Iterator[Model]:
        """Give what was written, loaded by llama.cpp."""
        from lorakit.adapters.export.llama_cpp import Model

        with contextlib.closing(Model(place, longest)) as model:
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

    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.target.tokenizer, replace(self.target.style, separator=""))

    def _starts(self) -> list[int]:
        """Return what stands before a prompt: nothing, or one token."""
        before = self._encoder().prompts([""])[0]
        if len(before) > 1:
            raise LorakitError(f"llama.cpp puts one start token before a text, and this tokenizer {len(before)}.")
        return before

    def _ends(self) -> list[int]:
        """Return the tokens that end an answer, the tokenizer's first; GGUF has three places."""
        own = self.target.tokenizer.eos_token_id
        return sorted(self.target.eos_ids, key=lambda token: (token != own, token))[:3]

    def _words(self) -> gguf_file.Words:
        tokenizer, starts = self.target.tokenizer, self._starts()
        template = self.target.style.chat_template or tokenizer.chat_template
        return gguf_file.Words(
            name=self.order.output.stem,
            bos_id=starts[0] if starts else tokenizer.bos_token_id,
            begins=bool(starts),
            eos_ids=self._ends(),
            pad_id=tokenizer.pad_token_id,
            unknown_id=tokenizer.unk_token_id,
            chat_template=template if isinstance(template, str) else None,
        )

    def _check_words(self, model: Model) -> None:
        """Raise LorakitError where llama.cpp cuts a text otherwise, or goes on behind a token that ends answers."""
        for text, expected in zip(_TEXTS, self._encoder().prompts(_TEXTS), strict=True):
            if model.ids(text) != expected:
                raise LorakitError(
                    f"llama.cpp cuts {text!r} into other tokens than this tokenizer, so that the model would read "
                    f"what it was not trained on. Use --to safetensors."
                )
        deaf = [token for token in self._ends() if not model.ends(token)]
        if deaf:
            raise LorakitError(f"llama.cpp does not stop at token {deaf[0]}, which ends answers. Use --to safetensors.")

    def _check(self, agreement: Agreement) -> None:
        """Raise LorakitError where llama.cpp says something else than the target."""
        moved = abs(agreement.loss_after - agreement.loss_before) / max(agreement.loss_before, 1e-3)
        if self._dtype != "float32":
            if not moved <= _LOSS_BOUND:
                raise LorakitError(
                    f"in {self._dtype}, llama.cpp loses what was learned: the loss goes from "
                    f"{agreement.loss_before:.4f} to {agreement.loss_after:.4f}. Export with --dtype f32."
                )
        elif not (agreement.difference <= self._architecture.bound and agreement.same_text == 1):
            raise LorakitError(
                f"llama.cpp does not compute this model: its logits differ by up to {agreement.difference:.1e} of the "
                f"largest one (at most {self._architecture.bound:.0e} is rounding), and {agreement.same_text:.0%} of "
                f"the texts are continued alike. Nothing was written; use --to safetensors."
            )

    def _proof(self, runtime: str, probes: Probes, agreement: Agreement) -> Proof:
        return Proof(
            runtime=runtime,
            dtype=self._dtype,
            texts=len(probes.examples),
            origin=probes.origin,
            largest_difference=agreement.largest_difference,
            largest_logit=agreement.largest_logit,
            same_text=agreement.same_text,
            loss_before=agreement.loss_before,
            loss_after=agreement.loss_after,
            notes=(*probes.notes, *self._untold()),
        )

    def _untold(self) -> Iterator[str]:
        """Yield what a GGUF file has no place for, and whoever uses it must know."""
        target = self.target
        if target.style.separator:
            yield f"GGUF has no place for the text behind a prompt: write {target.style.separator!r} behind each."
        if target.stop_strings:
            yield f"GGUF has no place for texts that end an answer: {', '.join(map(repr, target.stop_strings))}."
        if len(target.eos_ids) > len(self._ends()):
            yield f"GGUF has places for three tokens that end an answer, and this model {len(target.eos_ids)}."
        positions = target.base.max_positions
        if positions is not None and self._positions < positions:
            yield (
                f"llama.cpp lets this type of model attend to all it has read, and it was trained on windows of "
                f"{self._positions} tokens: the file says that its texts are no longer."
            )


def _check_installed() -> None:
    missing = [name for name in ("gguf", "llama_cpp") if find_spec(name) is None]
    if missing:
        raise LorakitError(
            f"--to gguf needs {' and '.join(missing)}, to write the file and to read it back: pip install "
            f"'lorakit[export]' (llama.cpp is compiled on the way: minutes, with cmake and a C++ compiler)."
        )


def _check_replaced(output: Path) -> None:
    """Raise LorakitError where --force would replace a file that is no GGUF."""
    if output.is_file():
        with output.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise LorakitError(f"{output} is no GGUF file, so it is not replaced; give another name.")
