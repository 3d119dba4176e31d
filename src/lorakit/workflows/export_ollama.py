"""A folder for Ollama: the GGUF file, and a Modelfile that frames prompts and stops as training did."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters.export.ollama import Framing, check_framing, conversations, framing_of, holds, modelfile
from lorakit.adapters.facts import licence
from lorakit.data.encoding import TextEncoder
from lorakit.errors import LorakitError
from lorakit.workflows.export_gguf import Gguf
from lorakit.workflows.export_gguf_notes import untold_of_windows
from lorakit.workflows.export_texts import TEXTS

if TYPE_CHECKING:
    from lorakit.adapters.export.llama_cpp import Model
    from lorakit.workflows.export_order import Proof

MODEL, MODELFILE, README = "model.gguf", "Modelfile", "README.md"

_MOST_POSITIONS = 8192
"""Keys and values of more than these take memory that whoever wants them must mean to give."""

_SETTINGS = {"temperature": 0.0, "repeat_penalty": 1.0}
"""What `lorakit generate` does unless told otherwise: the most probable token, as the model has it."""


class Ollama(Gguf):
    """Writes a folder that ``ollama create`` reads."""

    folder = True

    def refuse(self) -> None:
        """Raise LorakitError for what GGUF cannot hold, and for framings that Ollama's templates cannot say."""
        if self._kind != "decoder":
            raise LorakitError(
                f"a Modelfile frames prompts of decoders, and {self.order.name} is an {self._kind.replace('_', '-')}: "
                f"use --to gguf."
            )
        super().refuse()
        _ = self._told_of_framing

    def write(self, place: Path) -> None:
        """Write the model, the Modelfile and how to run them."""
        super().write(place / MODEL)
        positions = min(self._positions, _MOST_POSITIONS)
        name = licence(self.target.folder) or licence(self.target.base.folder)
        text = modelfile(self._framing, filter(holds, self._stops()), positions, _SETTINGS, name)
        (place / MODELFILE).write_text(text, encoding="utf-8", newline="")
        (place / README).write_text(_readme(self.order.output.name, self._told_of_framing), encoding="utf-8")

    def verify(self, place: Path) -> Proof:
        """Load the model in llama.cpp, which must also cut what the template writes as training did."""
        return super().verify(place / MODEL)

    @cached_property
    def _full_encoder(self) -> TextEncoder:
        return TextEncoder(self.target.tokenizer, self.target.style)

    @cached_property
    def _framing(self) -> Framing:
        return framing_of(self._full_encoder)

    @cached_property
    def _told_of_framing(self) -> list[str]:
        return check_framing(self._framing, self._full_encoder, TEXTS)

    def _check_words(self, model: Model) -> None:
        """Raise LorakitError, besides, where llama.cpp cuts a prompt of the template otherwise than training did."""
        super()._check_words(model)
        for messages in conversations(self._framing, TEXTS):
            if self._framing.turn is None:
                (expected,) = self._full_encoder.prompts([messages[-1]["content"]])
            else:
                expected = self._full_encoder.chat_prompt(messages)
            if model.ids(self._framing.text(messages), control=True) != expected:
                raise LorakitError(
                    f"Ollama cuts a prompt as a whole, and its {len(messages)} messages beginning with "
                    f"{messages[0]['content']!r} become other tokens than in training. Use --to gguf, and frame "
                    f"prompts as lorakit generate does."
                )

    def _stops(self) -> list[str]:
        """Return the texts of all tokens that end an answer, and those that end it besides."""
        known = self.target.tokenizer.added_tokens_decoder
        ends = [str(known[token]) for token in sorted(self.target.eos_ids) if token in known]
        return [*ends, *self.target.stop_strings]

    def _untold(self) -> Iterator[str]:
        """Yield what the Modelfile cannot say either."""
        yield from self._told_of_framing
        for stop in self._stops():
            if not holds(stop):
                yield f"a Modelfile cannot hold {stop!r}, which ends an answer: give it as a stop text of each request."
        yield from untold_of_windows(self.target, self._positions)


def _readme(name: str, notes: Iterable[str]) -> str:
    called = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "model"
    told = "".join(f"- {note}\n" for note in notes)
    return (
        f"# {called}\n\n"
        f"Written by lorakit for Ollama. In this folder:\n\n"
        f"```sh\nollama create {called} -f {MODELFILE}\nollama run {called}\n```\n\n"
        f"The Modelfile frames prompts and stops as training did, and takes the most probable token at each step;\n"
        f"`PARAMETER temperature` and `PARAMETER num_ctx` are yours to change.\n{told and chr(10)}{told}"
    )
