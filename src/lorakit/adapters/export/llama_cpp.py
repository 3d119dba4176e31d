"""A GGUF file as llama.cpp reads it, through `llama-cpp-python`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lorakit.errors import CheckpointError
from lorakit.families import Kind

if TYPE_CHECKING:
    from torch import Tensor


class Model:
    """A loaded GGUF file that goes on with text, on the CPU, with a cache in float32.

    Args:
        file: GGUF.
        longest: Tokens that a text may have.
        adapter: GGUF of an adapter to put on it.

    Raises:
        CheckpointError: llama.cpp does not load it.
    """

    _settings: ClassVar[Mapping[str, Any]] = {"logits_all": True}
    """Of `llama_cpp.Llama`, by what is read of a text."""

    def __init__(self, file: Path, longest: int, adapter: Path | None = None) -> None:
        from llama_cpp import GGML_TYPE_F32, Llama, __version__

        self.name = f"llama.cpp (llama-cpp-python {__version__})"
        told, _ = _log()
        try:
            self._model = Llama(
                str(file),
                n_ctx=longest,
                n_batch=longest,
                n_ubatch=longest,
                n_gpu_layers=0,
                n_threads=1,
                n_threads_batch=1,
                lora_path=None if adapter is None else str(adapter),
                type_k=GGML_TYPE_F32,
                type_v=GGML_TYPE_F32,
                verbose=False,
                **self._settings,
            )
        except (ValueError, RuntimeError) as problem:
            raise CheckpointError(f"llama.cpp does not load what was written: {' '.join(told) or problem}") from problem

    def scores(self, ids: Sequence[int]) -> Tensor:
        """Return the logits after each token of a text, shape (T, V), float32."""
        import torch

        self._model.reset()
        self._model.eval(list(ids))
        return torch.from_numpy(self._model.scores[: len(ids)].copy())

    def continued(self, ids: Sequence[int], most: int) -> list[int]:
        """Return the greedy continuation of a text, token by token from the cache, up to and with a token that ends."""
        self._model.reset()
        self._model.eval(list(ids))
        written: list[int] = []
        while len(written) < most:
            written.append(int(self._model.scores[len(ids) + len(written) - 1].argmax()))
            if self.ends(written[-1]) or len(written) == most:
                break
            self._model.eval([written[-1]])
        return written

    def ids(self, text: str, control: bool = False) -> list[int]:
        """Return the tokens of a prompt, the start token included where the file asks for one.

        Args:
            text: Of the prompt.
            control: Whether spelled-out control tokens are meant, as in what a template writes.
        """
        return list(self._model.tokenize(text.encode(), add_bos=True, special=control))

    def ends(self, token: int) -> bool:
        """Whether a token ends an answer."""
        from llama_cpp import llama_model_get_vocab, llama_vocab_is_eog

        return bool(llama_vocab_is_eog(llama_model_get_vocab(self._model.model), token))

    def close(self) -> None:
        """Give the memory and the file back."""
        self._model.close()

    def _encode(self, ids: Sequence[int]) -> None:
        """Let an encoder read a text."""
        import llama_cpp

        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_encode(self._model.ctx, llama_cpp.llama_batch_get_one(tokens, len(ids))) != 0:
            raise CheckpointError(f"llama.cpp does not read a text of {len(ids)} tokens: {' '.join(_log()[0])}")


class EncoderDecoder(Model):
    """A loaded GGUF file that reads a text whole and writes another."""

    def scores(self, ids: Sequence[int], before: Sequence[int] = ()) -> Tensor:
        """Return the logits after each token that the decoder has read, shape (U, V), float32.

        Args:
            ids: Of the text that the encoder reads.
            before: What the decoder has read.
        """
        self._encode(ids)
        return super().scores(before)

    def continued(self, ids: Sequence[int], most: int) -> list[int]:
        """Return what is written greedily about a text, up to and with a token that ends it."""
        from llama_cpp import llama_model_decoder_start_token

        self._encode(ids)
        return super().continued([llama_model_decoder_start_token(self._model.model)], most)


class _Tokens(Model):
    """A loaded GGUF file that gives a vector for each token."""

    # llama.cpp's number of no pooling.
    _settings: ClassVar[Mapping[str, Any]] = {"embedding": True, "pooling_type": 0}

    def vectors(self, ids: Sequence[int]) -> Tensor:
        """Return the last states, shape (T, D), float32."""
        from llama_cpp import llama_get_embeddings

        self._encode(ids)
        return _copied(llama_get_embeddings(self._model.ctx), (len(ids), self._model.n_embd()))


class Encoder(Model):
    """A loaded GGUF file that gives vectors of a text, or scores of its labels."""

    _settings: ClassVar[Mapping[str, Any]] = {"embedding": True}

    def __init__(self, file: Path, longest: int, adapter: Path | None = None) -> None:
        super().__init__(file, longest, adapter)
        self._tokens = _Tokens(file, longest, adapter)

    def vectors(self, ids: Sequence[int]) -> Tensor:
        """Return the last state of each token, shape (T, D), float32, whatever the file makes of them."""
        return self._tokens.vectors(ids)

    def pooled(self, ids: Sequence[int]) -> Tensor:
        """Return what the file makes of a text as a whole: a vector, shape (D,), or scores, shape (O,), float32."""
        import llama_cpp

        self._encode(ids)
        ranks = llama_cpp.llama_pooling_type(self._model.ctx) == llama_cpp.LLAMA_POOLING_TYPE_RANK
        width = llama_cpp.llama_model_n_cls_out(self._model.model) if ranks else self._model.n_embd()
        return _copied(llama_cpp.llama_get_embeddings_seq(self._model.ctx, 0), (width,))

    def close(self) -> None:
        """Give the memory and the file back."""
        self._tokens.close()
        super().close()


RUNTIMES: dict[Kind, Callable[..., Model]] = {"decoder": Model, "encoder": Encoder, "encoder_decoder": EncoderDecoder}
"""Kind of model -> what reads its file."""


def _copied(pointer: Any, shape: tuple[int, ...]) -> Tensor:
    import numpy
    import torch

    return torch.from_numpy(numpy.ctypeslib.as_array(pointer, shape).copy())


@cache
def _log() -> tuple[deque[str], Any]:
    """Let llama.cpp say nothing on the screen; return its last lines, and what keeps the listener alive."""
    import llama_cpp

    told: deque[str] = deque(maxlen=4)

    def listen(_: int, text: bytes, __: Any) -> None:
        told.append(text.decode("utf-8", "replace").strip())

    listener = llama_cpp.llama_log_callback(listen)
    llama_cpp.llama_log_set(listener, None)
    return told, listener
