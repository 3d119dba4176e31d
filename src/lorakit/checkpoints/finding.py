"""A base checkpoint: found by name, checked, and loaded with every tensor accounted for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit import families
from lorakit.checkpoints import inspection, locating, weights
from lorakit.errors import CheckpointError
from lorakit.families import Family

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_NEVER_READ = frozenset(
    {"auto_map", "attn_implementation", "_attn_implementation", "experts_implementation", "fusion_config"}
)
"""Keys of config.json that would steer loading; lorakit decides these itself."""


@dataclass(frozen=True)
class Checkpoint:
    """A base model on this computer; its weights are read only by `load` and `fingerprint`."""

    identity: str
    """Hub id, ``builtin:NAME`` or ``local:FOLDERNAME``: what an adapter says about its base, never a path."""
    folder: Path
    revision: str | None
    """Commit of a Hub snapshot; None for a folder or a built-in."""
    config: dict[str, Any]
    """config.json as it stands in the folder."""
    family: Family
    notes: list[str] = field(default_factory=list)
    """What the user should know; the command line prints it."""

    @cached_property
    def fingerprint(self) -> str:
        """``sha256:…`` of the weights, whatever the sharding; reads all of them once."""
        return weights.fingerprint(self.folder)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the checkpoint.

        Raises:
            CheckpointError: It is missing or damaged, or has more tokens than the embedding has rows.
        """
        return load_tokenizer(self.folder, self.config)

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens; None where nothing bounds it."""
        found = self.config.get(self.family.positions) if self.family.positions else None
        return found if isinstance(found, int) else None

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Every token id that ends a text: of config.json, generation_config.json and the tokenizer together."""
        found = [self.config.get("eos_token_id"), self.tokenizer.eos_token_id]
        file = self.folder / "generation_config.json"
        if file.is_file():
            found.append(inspection.read_json(file).get("eos_token_id"))
        ids = {number for value in found for number in (value if isinstance(value, list) else [value])}
        # A config made from defaults may name an id that its small vocabulary does not have.
        rows = self.config.get("vocab_size", 0)
        return frozenset(number for number in ids if isinstance(number, int) and 0 <= number < rows)

    @cached_property
    def stored_dtype(self) -> str:
        """Dtype, as torch names it, that most bytes of the weights are stored in."""
        sizes: Counter[str] = Counter()
        for name, place in weights.layout(self.folder).items():
            if not inspection.is_buffer(name):
                sizes[place.info.torch_dtype] += place.info.bytes
        return sizes.most_common(1)[0][0]

    def skeleton(self) -> PreTrainedModel:
        """Return the model without weights, on the meta device: names, shapes, ties and kinds of its layers."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"), quiet():
            return AutoModelForCausalLM.from_config(self._model_config(None), attn_implementation="eager")

    def load(self, dtype: str = "float32", attention: str = "sdpa", dropout: float | None = None) -> PreTrainedModel:
        """Read the weights into a model on the CPU, in eval mode.

        Args:
            dtype: Of all weights: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for the stored one.
            attention: Name of the attention function, as registered with transformers.
            dropout: In [0, 1): overrides every dropout of the config; None leaves the checkpoint's own.

        Raises:
            CheckpointError: A tensor is missing, not expected, of another shape, or not finite.
        """
        config = self._model_config(dropout)
        return _load(self.folder, config, dtype, attention)

    def _model_config(self, dropout: float | None) -> PretrainedConfig:
        from transformers import AutoConfig

        plain = {key: value for key, value in self.config.items() if key not in _NEVER_READ}
        try:
            config = AutoConfig.for_model(**plain)
        # The libraries check configs with errors of many kinds; each means that this file is wrong.
        except Exception as problem:
            raise CheckpointError(f"{self.folder / 'config.json'} cannot be used: {problem}") from problem
        if dropout is not None:
            for key, value in config.to_dict().items():
                if key.endswith(("dropout", "pdrop")) and isinstance(value, float | int):
                    setattr(config, key, dropout)
        return config


def find(name: str, revision: str | None = None) -> Checkpoint:
    """Find a base model: an existing folder, then a built-in, then a Hub id. No weight is read, only file headers.

    Args:
        name: As typed: path, built-in name, or Hub id.
        revision: Branch, tag or commit on the Hub; None for its main branch.

    Raises:
        CheckpointError: Nothing of that name, a damaged or dangerous file, or a type that cannot be trained.
    """
    located = locating.locate(name, revision)
    return open_folder(located)


def open_folder(located: locating.Located) -> Checkpoint:
    """Return the checkpoint in a folder that has been located; raises CheckpointError like `find`."""
    folder, notes = located.folder, list(located.notes)
    config = inspection.read_config(folder)
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(f"{folder} holds a whole model and an adapter at once; move one of them elsewhere.")
    inspection.check_weights(folder, config)
    if config.get("auto_map"):
        notes.append(f"{located.identity} brings its own code, which is not run; transformers knows this type itself.")
    if weights.only_bin(folder):
        file = weights.weight_files(folder)[0]
        notes.append(
            f"{located.identity} has only {file.name}; it is read as plain tensors, nothing else in it is used."
        )
    family = families.of(config["model_type"], tuple(config.get("architectures") or ()))
    if not family.listed and not inspection.known_to_transformers(family.model_type):
        raise CheckpointError(f"{folder / 'config.json'}: transformers knows no model type {family.model_type!r}.")
    return Checkpoint(located.identity, folder, located.revision, config, family, notes)


def load_tokenizer(folder: Path, config: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Read the tokenizer of `folder`, checked against the embedding that `config` describes.

    Raises:
        CheckpointError: It is missing or damaged, or has more tokens than the embedding has rows.
    """
    from transformers import AutoConfig, AutoTokenizer

    inspection.check_tokenizer_files(folder)
    try:
        with quiet():
            plain = AutoConfig.for_model(**{key: value for key, value in config.items() if key not in _NEVER_READ})
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), config=plain, local_files_only=True, trust_remote_code=False
            )
    # Each tokenizer class fails in its own way; whatever it says, the files are what is wrong.
    except Exception as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {reason}") from problem
    rows = config.get("vocab_size")
    if isinstance(rows, int) and len(tokenizer) > rows:
        raise CheckpointError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens and the model's embedding {rows} rows: they are "
            f"not of the same model. Copy the tokenizer files of the model whose weights these are."
        )
    return tokenizer


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return ``sha256:…`` of how a tokenizer cuts text, whatever padding or truncation was last asked of it."""
    rules: dict[str, Any] = {"vocabulary": sorted(tokenizer.get_vocab().items())}
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        del rules["padding"], rules["truncation"]
    rules["special"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return f"sha256:{hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()}"


def _load(folder: Path, config: PretrainedConfig, dtype: str, attention: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                str(folder),
                config=config,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                attn_implementation=_offered(config, attention),
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                # Shapes that differ are listed below, together with every other fault.
                ignore_mismatched_sizes=True,
            )
    except (ValueError, OSError, RuntimeError, TypeError, KeyError, AttributeError) as problem:
        raise CheckpointError(f"{folder} cannot be loaded: {problem}") from problem
    _account_for(folder, model, info)
    damaged = [name for name, tensor in model.named_parameters() if not weights.is_finite(tensor)]
    if damaged:
        raise CheckpointError(f"{folder} is damaged: {_listed(damaged)} holds numbers that are not finite.")
    return model.eval()


def _offered(config: PretrainedConfig, attention: str) -> str:
    """Return `attention`, or the plain one for types without `sdpa` (bloom, gpt_neo) and bounded scores (gemma2).

    transformers 5.17 offers `sdpa` for gemma2 all the same, and leaves the bound out without an error.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    known = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    lacking = known is not None and not known._supports_sdpa
    bounded = getattr(config, "attn_logit_softcapping", None) is not None
    return "eager" if attention == "sdpa" and (lacking or bounded) else attention


def _account_for(folder: Path, model: PreTrainedModel, info: dict[str, Any]) -> None:
    unexpected = [name for name in info["unexpected_keys"] if not inspection.is_buffer(name)]
    faults = [
        f"  {label:<10} {len(names)}: {_listed(names)}"
        for label, names in (
            ("missing", sorted(info["missing_keys"])),
            ("unexpected", sorted(unexpected)),
            ("misshapen", sorted(str(entry[0]) for entry in info["mismatched_keys"])),
        )
        if names
    ]
    if faults:
        total = len(model.state_dict())
        raise CheckpointError(
            "\n".join(
                [f"{folder}: the weights are not those of a {type(model).__name__} with {total} tensors:", *faults]
            )
        )


def _listed(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers says while loading: its progress bars, and warnings that lorakit checks itself."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
