"""The verb `generate`: open a target, frame prompts as in training, write answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lorakit.errors import LorakitError
from lorakit.generation.dealing import by_length
from lorakit.generation.settings import DecodingSettings
from lorakit.types import PromptStyle
from lorakit.workflows import quantizing, speeding
from lorakit.workflows.completions import Completion
from lorakit.workflows.framing_sources import check_writes, source_framing
from lorakit.workflows.placing import check_place, place
from lorakit.workflows.prompt_text import Prompt, check_unicode, composed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lorakit.adapters.bundle import Target
    from lorakit.generation.answers import Generation, Step, Watcher


class Writer:
    """A loaded target: frames prompts and writes answers, as often as asked."""

    def __init__(self, target: Target, model: PreTrainedModel, raw: bool = False, composes: bool = True) -> None:
        from lorakit.data.encoding import TextEncoder
        from lorakit.generation.context import position_limit
        from lorakit.workflows.tasks import normalisation

        self.target = target
        self.composes = composes and not raw and normalisation(target) == "nfc"
        """Whether letters of prompts are composed (Unicode NFC), as in training."""
        self.style = PromptStyle() if raw else target.style
        """How a prompt is framed."""
        self.chats = self.style.chat_template is not None
        """Whether a prompt may be a conversation."""
        self.limit = position_limit(model)
        """Tokens the model can read; None where nothing bounds it."""
        self.model = model
        """In eval mode, on its device."""
        self.paths = speeding.FastPaths()
        """How text is written sooner."""
        self._encoder = TextEncoder(target.tokenizer, self.style)
        self._source = source_framing(target, raw)

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the ids the model, or its encoder, reads; an empty text is the start token alone.

        Raises:
            LorakitError: Messages for a target without a chat template, text that is no Unicode text, or more tokens
                than the model has positions.
        """
        from lorakit.generation.context import check_length

        ids = self.encode_any(prompt)
        check_length(ids, self.limit, "the prompt")
        return ids

    def encode_any(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt of any length; otherwise like `encode`."""
        if self.composes:
            prompt = composed(prompt)
        if isinstance(prompt, str) and self.style.format == "chat":
            prompt = [{"role": "user", "content": prompt}]
        if isinstance(prompt, str):
            check_unicode(prompt)
            if self._source is not None:
                return self._source(prompt)
            return self._encoder.prompts([prompt])[0] or list(self._encoder.start_ids)
        if not self.chats:
            raise LorakitError(
                "messages were given, but this model has no chat template: it was not trained on conversations. "
                "Give a text as the prompt."
            )
        for message in prompt:
            check_unicode(message["content"])
        return self._encoder.chat_prompt(prompt)

    def quantize(self, prompts: Sequence[Prompt]) -> str:
        """Hold weights in 8 bits from now on; return what that changes, measured on `prompts`."""
        # Drafts in 8 bits would read the same bytes as the model itself then.
        self.paths = self.paths.without_rounded_drafts()
        return quantizing.quantize(self.model, [self.encode_any(prompt) for prompt in prompts], self.limit)

    def write(
        self,
        prompts: Sequence[Prompt],
        settings: DecodingSettings,
        *,
        watcher: Watcher | None = None,
    ) -> list[Completion]:
        """Write answers to all prompts, those of similar length side by side; the batches change no answer.

        Args:
            prompts: Texts or conversations.
            settings: How tokens are chosen and where answers end; the target's own stop texts are added.
            watcher: Told of text and steps as they come.

        Returns:
            `num_samples` answers a prompt, in the order of the prompts.
        """
        return [completion for _, group in self.each(prompts, settings, watcher=watcher) for completion in group]

    def each(
        self,
        prompts: Sequence[Prompt],
        settings: DecodingSettings,
        *,
        places: Sequence[str] = (),
        watcher: Watcher | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Like `write`, but give the answers to each prompt as soon as they and all before them are there.

        Args:
            prompts: Texts or conversations.
            settings: How tokens are chosen and where answers end; the target's own stop texts are added.
            places: Where each prompt was read, for messages.
            watcher: Told of text and steps as they come.
            on_done: Told how many prompts have been answered so far.

        Yields:
            The number of a prompt and its `num_samples` answers, in the order of the prompts. Where an error or Ctrl-C
            cuts the work short, the finished ones behind a gap come before it is raised.
        """
        from lorakit.generation.answers import Watcher

        watcher = watcher or Watcher()
        if settings.num_beams > 1 and watcher.top:
            raise LorakitError("beam search takes no single path whose steps could be shown; leave out one of the two.")
        stops = [*settings.stop, *(stop for stop in self.target.stop_strings if stop not in settings.stop)]
        settings = settings.model_copy(update={"stop": stops})
        encoded = [self._encode_from(place, prompt) for place, prompt in zip_longest(places, prompts)]
        # An answer that was trained apart from its prompt, as one in a conversation, is a text of its own.
        joined = self.style.format == "text" and all(isinstance(prompt, str) for prompt in prompts)
        ready: dict[int, list[Completion]] = {}
        whole: set[int] = set()
        given = 0
        try:
            for answer in self._answers(encoded, settings, joined, watcher):
                group = ready.setdefault(answer.prompt, [])
                group.append(Completion.of(prompts[answer.prompt], answer))
                if len(group) < settings.num_samples:
                    continue
                group.sort(key=lambda completion: completion.sample)
                whole.add(answer.prompt)
                if on_done is not None:
                    on_done(len(whole))
                while given in whole:
                    yield given, ready.pop(given)
                    given += 1
        except (KeyboardInterrupt, LorakitError):
            yield from ((number, ready[number]) for number in sorted(ready) if number in whole)
            raise

    def _encode_from(self, place: str | None, prompt: Prompt) -> list[int]:
        try:
            return self.encode(prompt)
        except LorakitError as error:
            if place is None:
                raise
            raise LorakitError(f"{place}: {error}") from error

    def _answers(
        self, encoded: list[list[int]], settings: DecodingSettings, joined: bool, watcher: Watcher
    ) -> Iterator[Generation]:
        from lorakit.generation.beams import beam_search
        from lorakit.generation.decoding import decoded

        ends, tokenizer = self.target.eos_ids, self.target.tokenizer
        if settings.num_beams > 1:
            for number, ids in enumerate(encoded):
                answer = beam_search(self.model, ids, settings, ends, tokenizer, joined=joined, number=number)
                if watcher.on_text is not None:
                    watcher.on_text(number, 0, answer.text)
                yield answer
            return
        batches = by_length([len(ids) for ids in encoded], settings)
        numbers = [number for batch in batches for number in batch]
        yield from decoded(
            self.model,
            [encoded[number] for number in numbers],
            settings,
            ends,
            tokenizer,
            numbers=numbers,
            joined=joined,
            watcher=watcher,
            drafter=self.paths.drafter,
            steps=self.paths.steps,
            at_once=[1 if self.paths.alone else len(batch) for batch in batches for _ in batch],
        )


def open_writer(
    target: str | Path,
    *,
    base: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    raw: bool = False,
    fast: bool = True,
    quantize: str | None = None,
    speculate: str | None = None,
) -> Writer:
    """Load a target for writing; a LoRA pair is folded into the weights in memory.

    Args:
        target: Adapter, run, merged or base model: a folder, a built-in name or a Hub id.
        base: Base of an adapter that does not say where it is.
        revision: Branch, tag or commit on the Hub.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        raw: Read prompts as they are, without the framing of the target's training.
        fast: Take the fast paths, which compute the same numbers up to rounding.
        quantize: `int8` where `Writer.quantize` will be called: then what it replaces is not prepared.
        speculate: `prompt` writes one answer at a time, with drafts from what was read (`PromptLookup`).

    Raises:
        LorakitError: The target or its base is not found or damaged, writes no text, or the device is not there; or
            its attention cannot take drafts back.
    """
    check_place(device, dtype)
    from lorakit.adapters.bundle import open_target

    opened = open_target(str(target), revision, base)
    check_writes(opened)
    chosen_device, chosen_dtype = place(device, dtype, opened.base.family)
    model = opened.load(chosen_dtype, "sdpa", chosen_device, merge=True)
    writer = Writer(opened, cast("PreTrainedModel", model), raw)
    writer.paths = speeding.fast_paths(writer.model, fast=fast, quantized=quantize is not None, speculate=speculate)
    return writer


def generate(
    target: str | Path,
    prompts: Prompt | Sequence[Prompt] = "",
    settings: DecodingSettings | None = None,
    *,
    base: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    raw: bool = False,
    fast: bool = True,
    quantize: str | None = None,
    speculate: str | None = None,
    on_text: Callable[[int, int, str], None] | None = None,
    on_step: Callable[[int, int, Step], None] | None = None,
) -> list[Completion]:
    """Write answers with a base model, or with what was trained on one.

    Args:
        target: Adapter, run, merged or base model: a folder, a built-in name or a Hub id.
        prompts: A text, a conversation (a list of messages), or a list of either.
        settings: How tokens are chosen and where answers end; left out: greedy, up to 256 tokens.
        base: Base of an adapter that does not say where it is.
        revision: Branch, tag or commit on the Hub.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        raw: Read prompts as they are, without the framing of the target's training.
        fast: Take the fast paths, which compute the same numbers up to rounding.
        quantize: `int8` holds weights in 8 bits, on a processor: several times as fast, scores change a little.
        speculate: `prompt` drafts tokens from what stood in the prompt, one answer at a time: the same text, sooner
            where answers quote.
        on_text: Takes (prompt, sample, piece) as whole characters become certain.
        on_step: Takes (prompt, sample, step); steps hold the five most probable tokens.

    Returns:
        `num_samples` answers a prompt, in the order of the prompts.

    Raises:
        LorakitError: Anything the caller can put right; the message says what.
    """
    from lorakit.generation.answers import Watcher

    quantizing.check_quantize(quantize, device, dtype)
    speeding.check_speculate(speculate, settings)
    device, dtype = ("cpu", "float32") if quantize else (device, dtype)
    how: dict[str, Any] = {"raw": raw, "fast": fast, "quantize": quantize, "speculate": speculate}
    writer = open_writer(target, base=base, revision=revision, device=device, dtype=dtype, **how)
    single = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], Mapping))
    listed = cast("Sequence[Prompt]", [prompts] if single else prompts)
    if quantize is not None:
        writer.quantize(listed)
    watcher = Watcher(on_text, on_step, top=0 if on_step is None else 5)
    return writer.write(listed, settings or DecodingSettings(), watcher=watcher)
