"""`lorakit merge`: fold an adapter into its base, and prove that the result says what base and adapter say."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from lorakit.adapters import card
from lorakit.adapters.bundle import Target, adapter_fingerprint, open_target
from lorakit.adapters.manifest import library_versions, write_manifest
from lorakit.adapters.merging import check_foldable, fold
from lorakit.checkpoints import finding, weights
from lorakit.checkpoints.folders import check_destination, whole_folder
from lorakit.checkpoints.locating import Located
from lorakit.errors import LorakitError
from lorakit.workflows.observing import Observed, observe
from lorakit.workflows.origins import origin_of
from lorakit.workflows.placing import check_range
from lorakit.workflows.probing import Probes, probes_for

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Dtype = Literal["float32", "bfloat16", "float16"]

_FLOAT32_BOUND = 1e-5
_LOSS_BOUND = 0.005


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What was written, and how far it is from base and adapter computed in float32."""

    folder: Path
    dtype: str
    """Dtype most of the weights are stored in."""
    size: int
    """Bytes of the weight files."""
    probes: int
    """Texts both were compared on."""
    origin: str
    """Where these texts come from."""
    largest_difference: float
    """Largest absolute difference between two logits."""
    largest_logit: float
    """Largest absolute logit of base and adapter, to compare with."""
    mean_kl: float
    """Mean Kullback-Leibler divergence of the next-token distributions, in nats, merged from adapter."""
    same_argmax: float
    """Share of positions with the same most probable token, in [0, 1]."""
    same_text: float | None
    """Share of probes continued with the same greedy text, in [0, 1]; None of a model that writes none."""
    written: int
    """Tokens of these texts in all."""
    loss_before: float
    """Mean loss of base and adapter on the probes, in nats a token."""
    loss_after: float
    """The same of the merged model."""
    notes: tuple[str, ...] = ()


def merge(
    target: str,
    output: str | Path,
    dtype: Dtype | None = None,
    base: str | None = None,
    force: bool = False,
    data: str | None = None,
) -> MergeReport:
    """Write the base with its adapter folded in, as a folder that plain transformers loads.

    The folder is reloaded from disk and compared with base and adapter, computed by PEFT in float32, before it gets
    its name; on any failure nothing is left behind.

    Args:
        target: Run or adapter: folder or Hub id.
        output: New folder.
        dtype: Of the stored weights; None keeps the base's own.
        base: Folder or Hub id of the base, where the adapter does not know it.
        force: Replace `output` if it exists and lorakit wrote all that it holds.
        data: File of rows to compare on; None: the run's own rows where they are known, else shipped sentences.

    Raises:
        LorakitError: The adapter does not fit, the folder is taken, or the merged model says something else.
    """
    opened = open_target(target, base=base)
    check_foldable(opened)
    check_range(dtype, opened.base.family)
    output = Path(output).expanduser()
    _check_output(opened, output, force)
    probes = probes_for(opened, data)
    before = observe(cast("PreTrainedModel", opened.load("float32")), opened, probes, _diverged(opened))
    notes = (*opened.notes, *probes.notes)
    with whole_folder(output, force) as aside:
        fold(opened, aside, dtype)
        whole = finding.open_folder(Located(aside, f"local:{output.name}"))
        after = observe(whole.load("float32"), opened, probes, _overflowed(whole.stored_dtype), before.texts)
        report = _compare(before, after, probes, output, whole.stored_dtype, _size(aside), notes)
        _refuse_another_model(report)
        _describe(aside, opened, report)
    return report


def _check_output(target: Target, output: Path, force: bool) -> None:
    for folder in (target.folder, target.base.folder):
        if output.resolve() == folder.resolve():
            raise LorakitError(f"{output} is what would be merged; give another folder for the result.")
    if (output / "adapter_config.json").exists():
        raise LorakitError(
            f"{output} holds an adapter, and transformers would put it on top of the merged model; give another folder."
        )
    check_destination(output, force, (target.folder, target.base.folder))


def _diverged(target: Target) -> str:
    return (
        f"base and adapter themselves give numbers that are not finite: the training of {target.folder} diverged, or "
        f"a file was edited. Train it again with a smaller learning rate, or use another copy; nothing was written."
    )


def _overflowed(dtype: str) -> str:
    return (
        f"the merged model gives numbers that are not finite, which base and adapter do not: they are too large for "
        f"{dtype}. Merge with --dtype float32; nothing was written."
    )


def _compare(
    before: Observed,
    after: Observed,
    probes: Probes,
    folder: Path,
    dtype: str,
    size: int,
    notes: tuple[str, ...],
) -> MergeReport:
    import torch

    scored = [(one.double(), other.double()) for one, other in zip(before.logits, after.logits, strict=True)]
    divergence = torch.cat([_divergence(one_NO, other_NO) for one_NO, other_NO in scored])
    agreed = torch.cat([(one_NO.argmax(-1) == other_NO.argmax(-1)).double() for one_NO, other_NO in scored])
    largest_logit = max(float(one_NO.abs().max()) for one_NO, _ in scored)
    # Two tokens may be equally good but for rounding, which either logit can be moved by.
    same = [missed <= 2 * _FLOAT32_BOUND * largest_logit for missed in after.missed]
    return MergeReport(
        folder=folder,
        dtype=dtype,
        size=size,
        probes=len(probes.examples),
        origin=probes.origin,
        largest_difference=max(float((one_NO - other_NO).abs().max()) for one_NO, other_NO in scored),
        largest_logit=largest_logit,
        mean_kl=max(0.0, float(divergence.mean())),
        same_argmax=float(agreed.mean()),
        same_text=sum(same) / len(same) if same else None,
        written=sum(map(len, before.texts)),
        loss_before=before.loss,
        loss_after=after.loss,
        notes=notes,
    )


def _divergence(one_NO: Tensor, other_NO: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of each row's distribution, in nats, shape (N,)."""
    one_log_NO, other_log_NO = one_NO.log_softmax(-1), other_NO.log_softmax(-1)
    return (one_log_NO.exp() * (one_log_NO - other_log_NO)).sum(-1)


def _refuse_another_model(report: MergeReport) -> None:
    """Raise LorakitError where the merged model does not say what base and adapter say."""
    moved = abs(report.loss_after - report.loss_before) / max(report.loss_before, 1e-3)
    if report.dtype != "float32":
        if not moved <= _LOSS_BOUND:
            raise LorakitError(
                f"rounded to {report.dtype}, the merged model loses what was learned: its loss on {report.probes} "
                f"texts goes from {report.loss_before:.4f} to {report.loss_after:.4f}. Merge with --dtype float32."
            )
        return
    bound = _FLOAT32_BOUND * report.largest_logit
    if not (report.largest_difference <= bound and report.same_text in (1, None)):
        written = "" if report.same_text is None else f", and {report.same_text:.0%} of the texts are continued alike"
        raise LorakitError(
            f"the merged model is not base and adapter: its logits differ by up to {report.largest_difference:.1e} "
            f"(at most {bound:.1e} is rounding){written}. This is a fault of lorakit or of a library under it; nothing "
            f"was written."
        )


def _describe(folder: Path, target: Target, report: MergeReport) -> None:
    """Write manifest.json, README.md and, where training brought one, the chat template of the merged model."""
    origin = origin_of(target, "merged")
    measured = (
        "largest_difference",
        "largest_logit",
        "mean_kl",
        "same_argmax",
        "same_text",
        "loss_before",
        "loss_after",
    )
    metrics = {f"merge_{name}": getattr(report, name) for name in measured if getattr(report, name) is not None}
    manifest = origin.model_copy(
        update={
            "form": "merged",
            "rounded": None,
            "parent": adapter_fingerprint(target) or weights.fingerprint(target.folder),
            "metrics": {**origin.metrics, **metrics},
            "libraries": library_versions(),
        }
    )
    if manifest.style.chat_template and not target.base.tokenizer.chat_template:
        (folder / "chat_template.jinja").write_text(manifest.style.chat_template, encoding="utf-8")
    recipe = target.folder / "recipe.yaml"
    if recipe.is_file():
        shutil.copyfile(recipe, folder / recipe.name)
    write_manifest(folder, manifest)
    card.write(folder, manifest)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in weights.weight_files(folder))
