"""Runs as training leaves them, made without training: a method applied, its weights moved, the folder written."""

from __future__ import annotations

from pathlib import Path

import torch

from lorakit import methods
from lorakit.adapters.bundle import write_bundle
from lorakit.adapters.manifest import Base, Manifest
from lorakit.checkpoints.finding import Checkpoint, tokenizer_fingerprint
from lorakit.checkpoints.folders import whole_folder
from lorakit.methods.settings import DeltaSettings, FreezeSettings, FullSettings, HeadSettings, LoraSettings
from lorakit.types import PromptStyle

STYLE = PromptStyle(format="prompt_completion", separator=" => ")


def manifest_of(base: Checkpoint, form: str, trained: tuple[str, ...] = (), method: dict | None = None) -> Manifest:
    return Manifest(
        form=form,
        base=Base(
            identity=base.identity,
            revision=base.revision,
            fingerprint=base.fingerprint,
            model_type=base.config["model_type"],
        ),
        method=method or {},
        style=STYLE,
        eos_ids=(0, 3),
        stop_strings=("###",),
        tokenizer=tokenizer_fingerprint(base.tokenizer),
        trained=trained,
    )


def trained_run(folder: Path, base: Checkpoint, settings, form: str, seed: int = 1):
    """Apply a method, move what learns as `seed` says, write the run; returns the model in memory."""
    model, trainable = methods.load(settings.name)(base.load(), settings, base.family)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    with whole_folder(folder) as aside:
        manifest = manifest_of(base, form, trainable.names, settings.model_dump(mode="json"))
        write_bundle(aside, model, manifest, base, "model: tiny\n")
    return model.eval()


def plain_adapter(folder: Path, model) -> Path:
    """Write a LoRA of rank 2 on `q_proj`, no longer at its start, by PEFT alone."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


def moved_adapter(folder: Path, model, **settings) -> Path:
    """Write a LoRA of these settings by PEFT alone, without a manifest; nothing that learns is left at its start."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(**settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


FORMS = {
    "lora": (LoraSettings(dora=True), "lora"),
    "head": (HeadSettings(), "changed"),
    "freeze": (FreezeSettings(blocks=1), "changed"),
    "full": (FullSettings(), "full"),
    "delta": (DeltaSettings(), "changed"),
}
