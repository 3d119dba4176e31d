"""DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054, section 5): moments cut over processes, and from stage 2
on gradients, and in stage 3 weights too.

DeepSpeed's engine cuts, gathers and exchanges; when a step ends and whether it is taken stays with the loop, as do the
optimizer, its learning rate, and what is saved. The plain twin is the whole model on each process.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any, cast

import torch
from torch import Tensor, nn

from lorakit.fast import logits
from lorakit.training.precision import Precision
from lorakit.training.updates import Updates


class Zero(Updates):
    """The engine over a model that was cut, and the updates of it; also in place of the optimizer.

    `param_groups`, `state_dict` and `load_state_dict` are those of the torch optimizer that DeepSpeed took over, by
    whole weights: a saved state does not show how it was cut.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: Mapping[str, Any],
        clip: float,
        precision: Precision,
        device: torch.device,
    ) -> None:
        """Cut `model` over the processes.

        Args:
            model: Whole, on the processor, the same on every process; changed in place.
            optimizer: AdamW or SGD over its weights; taken over.
            settings: DeepSpeed's section ``zero_optimization``.
            clip: Bound on the norm of the gradient.
            precision: Of matrix products.
            device: Where the model computes.
        """
        self.param_groups = [dict(group) for group in optimizer.param_groups]
        self._weights = [weight for group in self.param_groups for weight in group["params"]]
        self._names = _moments(optimizer)
        self.stage = int(settings["stage"])
        # Its weight is whole in the model's own forward pass alone.
        logits.keep_together(model)
        self.engine = _engine(model, optimizer, settings, clip, precision, device)
        self._cut = self.engine.optimizer
        # A flat vector for each group, over which DeepSpeed has the optimizer step.
        self._vectors: list[Tensor] = (
            self._cut.fp32_partitioned_groups_flat if self.stage == 3 else self._cut.single_partition_of_fp32_groups
        )
        self._begin_moments()
        self._reached: set[int] = set()
        self._watching = [weight.register_hook(_marking(self._reached, weight)) for weight in self._weights]

    def add(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of `loss`, exchanged between processes."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss)

    def bounded(self) -> Tensor:
        """Return the norm of the gradient; the engine bounds it when the step is taken."""
        if self.stage < 3:
            # It is infinite where it is not a number.
            return torch.as_tensor(self._cut.scaled_global_norm())
        from deepspeed.utils import safe_get_local_grad

        squares = torch.stack([safe_get_local_grad(weight).double().square().sum() for weight in self._weights]).sum()
        torch.distributed.all_reduce(squares)
        return squares.sqrt()

    def reaches(self, weight: nn.Parameter) -> bool:
        """Whether a gradient was computed for `weight`; known in the first step."""
        return id(weight) in self._reached

    def take(self) -> None:
        """Bound the gradient, and change the weights."""
        while self._watching:
            self._watching.pop().remove()
        for own, group in zip(self._cut.param_groups, self.param_groups, strict=True):
            own["lr"] = group["lr"]
        self.engine.step()

    def clear(self) -> None:
        """Let the gradient go."""
        self._cut.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments by position of the weight, each gathered when it is read, and the groups."""
        # All vectors have taken equally many steps.
        scalars = {name: value for name, value in self._state(self._vectors[0]).items() if name not in self._names}
        moments = {
            index: {**scalars, **{name: _Moment(weight, name) for name in self._names}}
            for index, weight in enumerate(self._weights)
        }
        return {"state": moments, "param_groups": self.param_groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned, whole, after the weights were put back."""
        for index, moments in state["state"].items():
            for name, value in moments.items():
                if name in self._names:
                    self._put(self._weights[index], value, name)
                else:
                    for vector in self._vectors:
                        self._state(vector)[name].copy_(value)
        # Copies of the weights that the optimizer steps on.
        if self.stage < 3:
            self._cut.refresh_fp32_params()
        else:
            from deepspeed.utils import safe_set_local_fp32_param

            for weight in self._weights:
                safe_set_local_fp32_param(weight, cast(Any, weight).ds_tensor)

    def _state(self, vector: Tensor) -> dict[str, Tensor]:
        return cast("dict[str, Tensor]", self._cut.state[vector])

    def _begin_moments(self) -> None:
        """Begin with moments of 0, as optimizers do: before a first step DeepSpeed knows no place to put others."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        for vector in self._vectors:
            state = self._state(vector)
            state |= {name: torch.zeros_like(vector) for name in self._names}
            if "exp_avg" in self._names:
                state["step"] = torch.zeros((), device=vector.device)
        if self.stage < 3:
            for weights, vector in zip(self._cut.bit16_groups, self._vectors, strict=True):
                lazy_init_hp_params_optimizer_state(weights, vector, self._cut.state)

    def _put(self, weight: nn.Parameter, moment: Tensor, name: str) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if self.stage < 3:
            safe_set_full_optimizer_state(weight, moment, name)
            return
        # Not the function for whole ones, which takes none that the number of processes does not divide.
        length, rank = cast(Any, weight).ds_tensor.numel(), torch.distributed.get_rank()
        part = moment.flatten()[rank * length : (rank + 1) * length]
        safe_set_local_optimizer_state(weight, nn.functional.pad(part, (0, length - part.numel())), name)


class _Moment:
    """A moment in parts, which is read like a DTensor (`checkpoints/shards.py`): shape, dtype, and all of it."""

    dtype = torch.float32

    def __init__(self, weight: Any, name: str) -> None:
        self.shape = getattr(weight, "ds_shape", weight.shape)
        self._weight, self._name = weight, name

    def detach(self) -> _Moment:
        return self

    def full_tensor(self) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        return cast(Tensor, safe_get_full_optimizer_state(self._weight, self._name))


def _moments(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """Return the names of what an optimizer keeps of a weight, in its shape."""
    if isinstance(optimizer, torch.optim.SGD):
        return ("momentum_buffer",) if optimizer.defaults["momentum"] else ()
    return "exp_avg", "exp_avg_sq"


def _marking(reached: set[int], weight: nn.Parameter) -> Any:
    return lambda _: reached.add(id(weight))


def _engine(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    clip: float,
    precision: Precision,
    device: torch.device,
) -> Any:
    # It would look for a GPU also where the recipe says cpu.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    # Of calls that DeepSpeed makes into torch.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # It logs to what stands for the standard output when it is imported.
    with redirect_stdout(sys.stderr):
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        # On processors it would first compile a kernel of its own to add up numbers, for a minute.
        cast(Any, deepspeed).ops.__compatible_ops__["deepspeed_shm_comm"] = False
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_clipping": clip if math.isfinite(clip) else 0.0,
            "zero_optimization": dict(settings),
            "zero_allow_untested_optimizer": True,
            # Without the list, gradients would be exchanged in bfloat16.
            "torch_autocast": {
                "enabled": precision == "bfloat16",
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],
            },
        }
        cast(Any, deepspeed).init_distributed(dist_init_required=False)
        if settings["stage"] == 3:
            # Weight by weight; the engine would move the whole model to its device first.
            deepspeed.zero.Init(module=model, config_dict_or_path=config)
            for buffer in model.buffers():
                buffer.data = buffer.data.to(device)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    return engine
