"""A GGUF file as llama.cpp reads it, through `llama-cpp-python`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


class Model:
    """A loaded GGUF file, on the CPU, with a cache in float32.

    Args:
        file: GGUF.
        longest: Tokens that a text may have.
        adapter: GGUF of an adapter to put on it.

    Raises:
        CheckpointError: llama.cpp does not load it.
    """

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
                logits_all=True,
                lora_path=None if adapter is None else str(adapter),
                type_k=GGML_TYPE_F32,
                type_v=GGML_TYPE_F32,
                verbose=False,
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

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a prompt, the start token included where the file asks for one."""
        return list(self._model.tokenize(text.encode(), add_bos=True, special=False))

    def ends(self, token: int) -> bool:
        """Whether a token ends an answer."""
        from llama_cpp import llama_model_get_vocab, llama_vocab_is_eog

        return bool(llama_vocab_is_eog(llama_model_get_vocab(self._model.model), token))

    def close(self) -> None:
        """Give the memory and the file back."""
        self._model.close()


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
