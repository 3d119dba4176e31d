"""Which output stands on a checkpoint, and which transformers class holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorakit.errors import CheckpointError
from lorakit.families import Family, Kind
from lorakit.types import Head, HeadTask, Problem

if TYPE_CHECKING:
    from transformers import PretrainedConfig

AUTO: dict[HeadTask, str] = {
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
    "masked_lm_nsp": "AutoModelForPreTraining",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
}
"""What a head's scores are about -> transformers' Auto class of it."""

_DEFAULTS: dict[Kind, Head] = {
    "decoder": Head("causal_lm"),
    "encoder": Head("masked_lm"),
    "encoder_decoder": Head("seq2seq_lm"),
}

_WRITES = frozenset({"causal_lm", "seq2seq_lm"})


def auto_class(head: Head) -> Any:
    """Return transformers' Auto class of a head."""
    import transformers

    return getattr(transformers, AUTO[head.task])


def model_class(head: Head, config: PretrainedConfig) -> Any:
    """Return the class of a model type with this head.

    Raises:
        CheckpointError: transformers has none.
    """
    found = auto_class(head)._model_mapping.get(type(config), None)
    if head.task == "masked_lm_nsp" and (found is None or "ForPreTraining" not in found.__name__):
        found = None
    if found is None:
        raise CheckpointError(
            f"transformers has no {config.model_type!r} model for {head.task}: choose another objective or model type."
        )
    return found[0] if isinstance(found, tuple) else found


def stored_head(config: Mapping[str, Any], family: Family) -> Head:
    """Return the head that a checkpoint's config.json says it has; for a bare model that of its kind."""
    names = [str(name) for name in config.get("architectures") or ()]
    labels = tuple(str(value) for _, value in sorted(_labels(config), key=lambda item: int(item[0])))
    for name in names:
        if name.endswith("ForSequenceClassification"):
            return Head("sequence_classification", labels, _problem(config, labels))
        if name.endswith("ForTokenClassification"):
            return Head("token_classification", labels)
        if name.endswith("ForQuestionAnswering"):
            return Head("question_answering")
        if name == "BertForPreTraining":
            return Head("masked_lm_nsp")
    return _DEFAULTS[family.kind]


def claims(config: Mapping[str, Any], head: Head, family: Family) -> bool:
    """Whether config.json says that the weights of `head` are among those stored."""
    names = [str(name) for name in config.get("architectures") or ()]
    bare = bool(names) and all(name.endswith("Model") and not name.endswith("LMHeadModel") for name in names)
    return not bare and stored_head(config, family).task == head.task


def writes(head: Head) -> bool:
    """Whether a model with this head writes text."""
    return head.task in _WRITES


def config_keys(head: Head) -> dict[str, Any]:
    """Return the keys of config.json that say what a head's scores mean."""
    if not head.labels:
        return {}
    keys: dict[str, Any] = {
        "id2label": dict(enumerate(head.labels)),
        "label2id": {label: number for number, label in enumerate(head.labels)},
    }
    return {**keys, "problem_type": head.problem} if head.problem is not None else keys


def _labels(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = config.get("id2label")
    if isinstance(found, Mapping) and all(str(key).isdigit() for key in found):
        return [(str(key), value) for key, value in found.items()]
    return [("0", "LABEL_0"), ("1", "LABEL_1")]


def _problem(config: Mapping[str, Any], labels: tuple[str, ...]) -> Problem:
    stated = config.get("problem_type")
    if stated in ("single_label_classification", "multi_label_classification", "regression"):
        return stated  # type: ignore[no-any-return]
    return "regression" if len(labels) == 1 else "single_label_classification"
