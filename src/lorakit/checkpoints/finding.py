"""A base checkpoint: found by name, checked, and loaded with every tensor accounted for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit import families
from lorakit.checkpoints import heads, inspection, locating, new_tokens, weights
from lorakit.checkpoints.loading import load_model
from lorakit.checkpoints.loading import quiet as quiet
from lorakit.checkpoints.new_tokens import NewTokens
from lorakit.errors import CheckpointError
from lorakit.families import Family
from lorakit.types import Head

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
    """config.json as it stands in the folder; ``vocab_size`` counts new tokens."""
    family: Family
    notes: list[str] = field(default_factory=list)
    """What the user should know; the command line prints it."""
    new_tokens: NewTokens | None = None
    """What was added to the vocabulary in `folder`; None where nothing was."""

    @property
    def called(self) -> str:
        """What messages call it: the name of a built-in or on the Hub, else the folder as it was typed."""
        return str(self.folder) if self.identity.startswith("local:") else self.identity.removeprefix("builtin:")

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
        return load_tokenizer(self.folder, self.config) if self.new_tokens is None else self.new_tokens.tokenizer

    def with_tokens(self, tokens: Sequence[str]) -> tuple[Checkpoint, list[str]]:
        """Return the checkpoint with more tokens, and what is to be told: tokenizer, sizes and models have them.

        Raises:
            LorakitError: A token cannot be added.
        """
        found, notes = new_tokens.add(self.tokenizer, tokens, int(self.config["vocab_size"]), self.new_tokens)
        if found is None or found is self.new_tokens:
            return self, notes
        larger = replace(self, config={**self.config, "vocab_size": found.rows}, new_tokens=found)
        # The same files; a fingerprint that was taken holds.
        vars(larger).update({name: value for name, value in vars(self).items() if name == "fingerprint"})
        return larger, notes

    @property
    def original(self) -> Checkpoint:
        """The checkpoint as its files hold it, without new tokens."""
        if self.new_tokens is None:
            return self
        return replace(self, config={**self.config, "vocab_size": self.new_tokens.stored}, new_tokens=None)

    @property
    def new_rows(self) -> tuple[int, ...]:
        """Rows of the embedding that belong to new tokens."""
        return self.new_tokens.ids if self.new_tokens is not None else ()

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens; None where nothing bounds it."""
        return self.family.usable_positions(self.config)

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

    @property
    def head(self) -> Head:
        """The head the checkpoint has by itself."""
        return heads.stored_head(self.config, self.family)

    def skeleton(self, head: Head | None = None) -> PreTrainedModel:
        """Return the model without weights, on the meta device: names, shapes, ties and kinds of its layers.

        Args:
            head: The output wanted; None for the checkpoint's own.
        """
        import torch

        head = head or self.head
        config = self._model_config(None, head)
        with torch.device("meta"), quiet():
            return heads.auto_class(head).from_config(config, attn_implementation="eager")

    def load(
        self,
        dtype: str = "float32",
        attention: str = "sdpa",
        dropout: float | None = None,
        head: Head | None = None,
    ) -> PreTrainedModel:
        """Read the weights into a model on the CPU, in eval mode; a head that the checkpoint lacks starts at random.

        Args:
            dtype: Of all weights: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for the stored one.
            attention: Name of the attention function, as registered with transformers.
            dropout: In [0, 1): overrides every dropout of the config; None leaves the checkpoint's own.
            head: The output wanted; None for the checkpoint's own.

        Raises:
            CheckpointError: A tensor is missing, not expected, of another shape, or not finite.
        """
        return self.load_for(head or self.head, dtype, attention, dropout)[0]

    def load_for(
        self, head: Head, dtype: str = "float32", attention: str = "sdpa", dropout: float | None = None, seed: int = 0
    ) -> tuple[PreTrainedModel, tuple[str, ...]]:
        """Like `load`, and also return the names of the weights that the checkpoint lacks, drawn from `seed`."""
        config = self._model_config(dropout, head)
        claimed = heads.claims(self.config, head, self.family)
        if claimed and head.labels:
            self._check_labels(head)
        if self.new_tokens is not None:
            config.vocab_size = self.new_tokens.stored
        model, fresh = load_model(self.folder, config, head, self.family.kind, claimed, dtype, attention, seed)
        if self.new_tokens is not None:
            self.new_tokens.give_rows(model)
        return model, fresh

    def _check_labels(self, head: Head) -> None:
        """Refuse to let a trained head mean other labels than it was trained for."""
        own = self.head
        generic = all(label == f"LABEL_{number}" for number, label in enumerate(own.labels))
        if own.labels != head.labels and not (generic and len(own.labels) == len(head.labels)):
            raise CheckpointError(
                f"{self.identity} was trained for the labels {', '.join(own.labels[:8])}, and the rows have "
                f"{', '.join(head.labels[:8])}. Name the rows' labels alike, list them with objective.labels, or start "
                f"from a checkpoint without this head."
            )

    def _model_config(self, dropout: float | None, head: Head) -> PretrainedConfig:
        from transformers import AutoConfig

        plain = {key: value for key, value in self.config.items() if key not in _NEVER_READ}
        try:
            config = AutoConfig.for_model(**{**plain, **heads.config_keys(head)})
        # The libraries check configs with errors of many kinds; each means that this file is wrong.
        except Exception as problem:
            raise CheckpointError(f"{self.folder / 'config.json'} cannot be used: {problem}") from problem
        if head.task == "sequence_classification":
            # Where rows of a batch end is found by the id that pads them.
            config.pad_token_id = padding_id(self.tokenizer)
        if dropout is not None:
            for key, value in config.to_dict().items():
                if key.endswith(("dropout", "pdrop", "dropout_prob", "dropout_rate")) and isinstance(
                    value, float | int
                ):
                    setattr(config, key, dropout)
            if head.labels:
                # Heads of some types (gpt2, llama) fall back on 0.1 where the config has no such key.
                config.classifier_dropout = dropout
        return config


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that fills the places of shorter rows: the padding token, else the end-of-sequence token, else 0.

    A decoder with a classifier looks for the last token that differs from ``config.pad_token_id``; it must be this one.
    """
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(found, int):
            return found
    return 0


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
    family = families.of(config["model_type"], tuple(config.get("architectures") or ()), config)
    if not family.listed and not inspection.known_to_transformers(family.model_type):
        raise CheckpointError(f"{folder / 'config.json'}: transformers knows no model type {family.model_type!r}.")
    if not family.listed:
        notes.append(
            f"{located.identity}: model type {family.model_type!r} is not in the table of tested types; it is taken "
            f"for {'a' if family.kind == 'decoder' else 'an'} {family.kind.replace('_', '-')}."
        )
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
