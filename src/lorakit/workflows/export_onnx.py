"""A merged model as ONNX files, compared in onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lorakit.adapters import whole
from lorakit.checkpoints import heads, inspection
from lorakit.errors import LorakitError
from lorakit.workflows import export_texts
from lorakit.workflows.export_agreement import NEW_TOKENS
from lorakit.workflows.export_order import Order, Proof
from lorakit.workflows.probing import probes_for

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from lorakit.workflows.export_scores import Reader

BOUND = 1e-5
"""Share of the largest logit by which float32 may differ."""


class Onnx:
    """Writes a folder that optimum, onnxruntime and transformers.js read."""

    folder = True
    dtypes: tuple[str, ...] = ("float32",)

    def __init__(self, order: Order) -> None:
        self.order = order
        self.target = order.target

    def refuse(self) -> None:
        """Raise LorakitError for what has no graph, or cannot be proved here."""
        if self.order.shard_size is not None:
            raise LorakitError("--shard-size is for --to safetensors; leave it out.")
        family, task = self.target.base.family, self.target.head.task
        if family.kind == "encoder_decoder" and task == "sequence_classification":
            raise LorakitError(
                f"{self.order.name} scores a text at its last end-of-sequence token, whose place an ONNX graph of "
                f"transformers' exporter cannot look for. Use --to safetensors."
            )
        _check_installed()

    def write(self, place: Path) -> None:
        """Fold the adapter in and trace what comes of it."""
        from lorakit.adapters.export import onnx_file
        from lorakit.adapters.export.onnx_graphs import graphs_of

        model = cast("PreTrainedModel", self.target.load("float32", merge=True))
        self._write_companions(place, model)
        graphs = {name: onnx_file.traced(graph) for name, graph in graphs_of(model, self.target.head).items()}
        if "decoder_model" in graphs:
            first, later = graphs.pop("decoder_model"), graphs.pop("decoder_with_past_model")
            graphs["decoder_model_merged"] = onnx_file.merged(first, later)
        for name, graph in graphs.items():
            onnx_file.save(graph, place, name)

    def verify(self, place: Path) -> Proof:
        """Load the files in onnxruntime: alone, padded and from the cache they must say what the target does."""
        from lorakit.adapters.export.onnx_runtime import NAME
        from lorakit.workflows.export_scores import compare

        probes = probes_for(self.target, self.order.data)
        model: Any = self.target.load("float32")
        # PEFT's wrapper hides what kind of model it is; the layers inside keep their pairs.
        model = model.get_base_model() if self.target.form == "lora" else model
        agreement = compare(model, self.target, probes, self._loaded(place, model), BOUND)
        agreement.check_exact(BOUND, "onnxruntime")
        return agreement.proof(NAME, "float32", probes, export_texts.untold(self.target, "ONNX"))

    def _loaded(self, place: Path, model: Any) -> Reader:
        """Return what was written, loaded by onnxruntime; `model` says what it may not write."""
        from lorakit.adapters.export import onnx_runtime
        from lorakit.generation.constraints import Constraints
        from lorakit.generation.encoded import decoder_start

        task, ends = self.target.head.task, self.target.eos_ids
        if task == "causal_lm":
            return onnx_runtime.Decoder(place, ends)
        if task != "seq2seq_lm":
            return onnx_runtime.Scores(place)
        constraints = Constraints(model, NEW_TOKENS, ends)

        def choice(logits_V: Tensor, read: Sequence[int]) -> int:
            return int(constraints.apply(logits_V[None], [read])[0].argmax())

        return onnx_runtime.EncoderDecoder(place, decoder_start(model), ends, choice)

    def _write_companions(self, place: Path, model: PreTrainedModel) -> None:
        """Write config.json, the tokenizer's files, and where training taught to stop."""
        target, tokenizer = self.target, self.target.base.tokenizer
        whole.write_companions(place, target.base, "float32", model, target.head)
        template = target.style.chat_template
        if template and not tokenizer.chat_template:
            (place / "chat_template.jinja").write_text(template, encoding="utf-8")
        if tokenizer.pad_token is None and tokenizer.eos_token is not None:
            # What is padded is masked, so that any token does.
            _add(place / "tokenizer_config.json", {}, pad_token=str(tokenizer.eos_token))
        if heads.writes(target.head) and target.eos_ids:
            made = model.generation_config.to_diff_dict()
            _add(place / "generation_config.json", made, eos_token_id=sorted(target.eos_ids))


def _add(file: Path, otherwise: dict[str, Any], **told: Any) -> None:
    """Put keys into a JSON file, which begins with others where it is not there."""
    known = inspection.read_json(file) if file.is_file() else otherwise
    file.write_text(json.dumps({**known, **told}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_installed() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise LorakitError(
            f"--to onnx needs {' and '.join(missing)}, to write the files and to read them back: pip install "
            f"'lorakit[onnx]'."
        )
    if find_spec("transformers.exporters") is None:
        raise LorakitError("--to onnx needs transformers' own exporter: pip install 'transformers>=5.17'.")
