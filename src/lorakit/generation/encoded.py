"""What an encoder-decoder has read and written so far: the encoder runs once, its keys and values are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from lorakit.errors import LorakitError
from lorakit.generation import caching
from lorakit.generation.captured import CapturedContext, CapturedSteps
from lorakit.generation.context import Context, check_length, position_limit


class EncodedContext:
    """B sources, and what the decoder has written for each.

    Sources are padded at the right and masked; every decoder begins in the same column, so that nothing else is padded.
    """

    continues = False
    """Whether an answer goes on from its prompt; here it is a text of its own."""

    joins = False
    """Whether rows that were read apart may go on with these; a decoder here counts its positions from one start."""

    def __init__(self, model: PreTrainedModel, sources: Sequence[Sequence[int]]) -> None:
        """Lay `sources` side by side; nothing is computed before `read_prompts`.

        Raises:
            LorakitError: A source is empty or longer than the model's positions, or nothing says what the decoder
                begins with.
        """
        assert not model.training, "text is written in eval mode: dropout would change it"
        self.model = model
        self.limit = position_limit(model)
        """Positions of the encoder, and of the decoder, apart; None where nothing bounds them."""
        for number, source in enumerate(sources, 1):
            check_length(source, self.limit, f"prompt {number}" if len(sources) > 1 else "the prompt")
        self._sources = sources
        self.before: list[list[int]] = [[decoder_start(model)] for _ in sources]
        """What stands before each answer, read by the decoder."""
        config = model.config.get_text_config(decoder=True)
        self._cache = EncoderDecoderCache(caching.growing(config), DynamicCache(config=config))

    def read_prompts(self) -> Tensor:
        """Run the encoder on all sources, and the decoder's first step; returns logits (B, V), float32."""
        longest = max(map(len, self._sources))
        ids_BT = torch.zeros((len(self._sources), longest), dtype=torch.int64)
        mask_BT = torch.zeros_like(ids_BT)
        for row, source in enumerate(self._sources):
            ids_BT[row, : len(source)] = torch.tensor(source)
            mask_BT[row, : len(source)] = 1
        device = self.model.device
        self._mask_BT = mask_BT.to(device)
        encoder = self.model.get_encoder()
        self._encoded_BTD = encoder(input_ids=ids_BT.to(device), attention_mask=self._mask_BT).last_hidden_state
        return self.read(torch.tensor(self.before, device=device))[:, -1]

    def read(self, tokens_BN: Tensor) -> Tensor:
        """Append tokens to each answer, shape (B, N); returns logits of the one after each, (B, N, V), float32."""
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded_BTD),
            attention_mask=self._mask_BT,
            decoder_input_ids=tokens_BN,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits_BNV: Tensor = output.logits.float()
        return logits_BNV

    @property
    def forgets(self) -> bool:
        """Whether what the decoder read last can be dropped again."""
        return caching.forgets(self._cache.self_attention_cache)

    def forget(self, count: int) -> None:
        """Drop the last `count` tokens of each answer."""
        for layer in self._cache.self_attention_cache.layers if count else ():
            layer.forget(count)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be left out, or stand more than once."""
        if list(rows) == list(range(len(self._mask_BT))):
            return
        rows_B = torch.tensor(rows, device=self._mask_BT.device)
        self._mask_BT = self._mask_BT[rows_B]
        self._encoded_BTD = self._encoded_BTD[rows_B]
        self._cache.reorder_cache(rows_B)


def context_of(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], steps: CapturedSteps | None = None
) -> Context | EncodedContext:
    """Return what reads `prompts`: an encoder and a decoder, or a decoder alone, by `steps` where they are given."""
    if model.config.is_encoder_decoder:
        return EncodedContext(model, prompts)
    return Context(model, prompts) if steps is None else CapturedContext(model, prompts, steps)


def decoder_start(model: PreTrainedModel) -> int:
    """Return the id that the decoder begins with; where none is named, like transformers, that of a sequence's begin.

    Raises:
        LorakitError: Neither generation_config.json nor config.json says.
    """
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in (model.generation_config, model.config):
            start = getattr(config, name, None)
            if start is not None:
                return int(start)
    raise LorakitError(
        "neither generation_config.json nor config.json has a decoder_start_token_id, so it cannot be told what an "
        "answer begins with. Add it: for mBART the id of the language to write, for T5 that of the padding token."
    )
