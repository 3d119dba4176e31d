"""Blocks compiled in place (`torch.compile`): what lies between two products becomes one kernel in place of many.

The repeated block is compiled once, for rows of any length, and its code serves all blocks of its kind; names and
weights stay. The plain twin is each block's own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from lorakit.fast import varlen, varlen_kernel

_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Largest difference of all gradients together, as a share of their norm, by the dtype of the products."""
_MOST_VARIANTS = 64
"""Codes for one function: of training and scoring, of states that need a gradient or not, of each kind of block."""

_apart = torch.compiler.disable(varlen.attend)
_kernel = varlen_kernel.found()


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """Attend on a GPU like `varlen.attend`, of which compiled code holds the kernel alone.

    All else goes by the lengths of the segments, which are other ones at each step: code for them would serve once.
    """
    special = how.get("dropout") or how.get("softcap") is not None or how.get("position_bias") is not None
    if special or not torch.compiler.is_compiling() or value.dtype not in (torch.bfloat16, torch.float16):
        attended: tuple[Tensor, None] = _apart(module, query, key, value, attention_mask, **how)
        return attended
    assert _kernel is not None
    causal, segments = how.get("is_causal"), how["segment_lengths"]
    causal = getattr(module, "is_causal", True) if causal is None else causal
    borders, longest = (segments.borders, segments.borders), (segments.longest, segments.longest)
    asked = (how.get("scaling"), causal, how.get("sliding_window"))
    return varlen_kernel.attend(_kernel, query, key, value, borders, longest, *asked), None


def take(
    blocks: Sequence[nn.Module], slopes: Callable[[], list[Tensor]], dtype: torch.dtype, backend: str = "inductor"
) -> str:
    """Compile `blocks` in place, and hold the gradients of some rows against those of the plain blocks.

    Args:
        blocks: Of one model, whose other parts stay as they are.
        slopes: Computes gradients of what learns, with the same random numbers each time.
        dtype: Of the products in it.
        backend: Of `torch.compile`.

    Returns:
        Why the blocks were left as they are, or "".
    """
    plain = slopes()
    on_gpu = next(blocks[0].parameters()).is_cuda
    AttentionInterface.register(varlen.NAME, attend if on_gpu and _kernel is not None else _apart)
    torch._dynamo.config.recompile_limit = max(_MOST_VARIANTS, torch._dynamo.config.recompile_limit)
    # Dropout then hides what it hides in plain blocks.
    options: Any = {"fallback_random": True} if backend == "inductor" else None
    torch._dynamo.config.suppress_errors = False
    # It would cut a block where the gradients of several processes are exchanged in between; blocks are short.
    torch._dynamo.config.optimize_ddp = False
    for block in blocks:
        block.compile(backend=backend, dynamic=True, options=options)
    try:
        found = slopes()
    except Exception as error:  # Whatever a compiler, and all that it calls, may raise.
        release(blocks)
        # Behind an empty line comes advice for those who write compilers.
        return f"it cannot be done here ({' '.join(str(error).partition(chr(10) * 2)[0].split())})"
    size = _norm(plain)
    away = _norm([one - other for one, other in zip(plain, found, strict=True)]) / max(size, 1e-9)
    if not away <= _TOLERANCES[dtype]:
        release(blocks)
        return f"gradients differ by {away:.1e} of their norm"
    # What is met later and cannot be compiled is computed plainly.
    torch._dynamo.config.suppress_errors = True
    return ""


def release(blocks: Sequence[nn.Module]) -> None:
    """Let blocks compute plainly again."""
    for block in blocks:
        block._compiled_call_impl = None


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([tensor.float().norm() for tensor in tensors]).norm())
