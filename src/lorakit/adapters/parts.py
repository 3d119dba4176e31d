"""A LoRA adapter taken apart into its pairs and what is stored beside them, and put together again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.adapters import lora_file
from lorakit.adapters.lora_config import LoraFile
from lorakit.adapters.surgery import Pair
from lorakit.checkpoints import shards, weights
from lorakit.errors import CheckpointError

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import Tensor

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Parts:
    """The tensors of an adapter."""

    pairs: Mapping[str, Pair]
    """By the base's name of the layer."""
    rest: Mapping[str, Tensor]
    """By name in the file: heads, other modules and rows of new tokens that are stored whole, lengths of DoRA."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All of them by name in the file, each made when it is asked for; the scale of a pair is in its B."""
        makers: dict[str, Callable[[], Tensor]] = {name: partial(self.rest.__getitem__, name) for name in self.rest}
        for module in self.pairs:
            makers[f"{lora_file.PREFIX}{module}{_DOWN}"] = partial(self._down, module)
            makers[f"{lora_file.PREFIX}{module}{_UP}"] = partial(self._up, module)
        return _Made(makers)

    def _down(self, module: str) -> Tensor:
        return self.pairs[module].down_RI

    def _up(self, module: str) -> Tensor:
        pair = self.pairs[module]
        return pair.up_OR.float() * pair.scale

    def trained(self, adapter: LoraFile) -> tuple[str, ...]:
        """Return the names of the tensors in PEFT's wrapper, as a manifest lists them."""
        return tuple(_trained_name(name, adapter.modules_to_save or []) for name in self.tensors)


class _Made(Mapping[str, "Tensor"]):
    """Tensors that are made when they are asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class PutAside(Mapping[str, Pair]):
    """Pairs of scale 1 that lie in a folder, a file each, and are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}

    def put(self, module: str, pair: Pair) -> None:
        """Write a pair."""
        assert pair.scale == 1
        file = self._folder / f"{len(self._files)}.safetensors"
        shards.write(file, {"down": pair.down_RI, "up": pair.up_OR})
        self._files[module] = file

    def __getitem__(self, module: str) -> Pair:
        found = dict(weights.tensors(self._files[module]))
        return Pair(found["down"], found["up"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _trained_name(name: str, whole: Sequence[str]) -> str:
    """Return what PEFT calls a tensor of the file in its wrapper.

    Args:
        name: In the file.
        whole: Ends of the names of modules that are stored whole.

    Raises:
        CheckpointError: Nothing says what the tensor is.
    """
    if lora_file.is_rows(name):
        return f"{name}.default"
    words = name.split(".")
    if lora_file.is_pair(name):
        place = next(number for number, word in enumerate(words) if word.startswith("lora_")) + 1
        return ".".join([*words[:place], "default", *(words[place:] or ["weight"])])
    owners = (".".join(words[:place]) for place in range(1, len(words)))
    owner = next((owner for owner in owners if any(f".{owner}".endswith(f".{end}") for end in whole)), None)
    if owner is None:
        raise CheckpointError(
            f"the adapter holds {name!r}, which adapter_config.json does not name: a weight of the base that was saved "
            f"with it (PEFT's save_embedding_layers), or the file was edited. Save it without."
        )
    return f"{owner}.modules_to_save.default{name.removeprefix(owner)}"


def take_apart(folder: Path, adapter: LoraFile) -> Parts:
    """Read an adapter as pairs and the rest.

    Raises:
        CheckpointError: The file is damaged, or a pair lacks one of its factors.
    """
    rest = lora_file.read_lora_weights(folder)
    names = [name.removesuffix(_DOWN) for name in rest if name.endswith(_DOWN)]
    pairs = {}
    for name in names:
        module = name.removeprefix(lora_file.PREFIX)
        down_RI, up_OR = rest.pop(name + _DOWN), rest.pop(name + _UP, None)
        if up_OR is None or up_OR.shape[1:] != down_RI.shape[:1]:
            raise CheckpointError(f"{folder} does not hold two factors of one rank for {module!r}: it was edited.")
        pairs[module] = Pair(down_RI, up_OR, adapter.scale(module, down_RI.shape[0]))
    return Parts(pairs, rest)


def config_of(adapter: LoraFile, pairs: Mapping[str, Pair]) -> LoraFile:
    """Return adapter_config.json for pairs of these ranks, each with a scale of 1, so that alpha is the rank.

    The most frequent rank is that of the adapter; other layers are named one by one.
    """
    ranks = Counter(pair.rank for pair in pairs.values())
    usual = max(ranks, key=lambda rank: (ranks[rank], rank))
    own = {module: pair.rank for module, pair in pairs.items() if pair.rank != usual}
    changes = {
        "r": usual,
        "lora_alpha": float(usual),
        "use_rslora": False,
        "rank_pattern": own,
        "alpha_pattern": {module: float(rank) for module, rank in own.items()},
    }
    return adapter.model_copy(update=changes)


def targeting(adapter: LoraFile, modules: Sequence[str]) -> LoraFile:
    """Return a config whose layers are named one by one, and by nothing else."""
    others = {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
    return adapter.model_copy(update={"target_modules": sorted(modules), **others})


def method_of(adapter: LoraFile, before: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the settings of the method that a manifest tells of a config that `config_of` returned.

    Args:
        adapter: The config.
        before: Settings of the training.
    """
    told: dict[str, JsonValue] = {
        **before,
        "name": "lora",
        "rank": adapter.r,
        "alpha": adapter.lora_alpha,
        "rslora": False,
        "dora": adapter.use_dora,
        "rank_pattern": dict(adapter.rank_pattern),
        "alpha_pattern": dict(adapter.alpha_pattern),
    }
    if isinstance(adapter.target_modules, list):
        told["targets"] = list(adapter.target_modules)
    if adapter.layers_to_transform is None:
        told["last_blocks"] = None
    # What says nothing stays out, so that training can go on with these settings.
    return {name: value for name, value in told.items() if value not in (None, {})}
