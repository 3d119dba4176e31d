"""A model ready to be trained: loaded, packed where that is proved safe, some of its weights learning."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lorakit import methods
from lorakit.adapters.bundle import Target
from lorakit.adapters.changed import read as read_changed
from lorakit.adapters.lora_file import read_lora_weights
from lorakit.checkpoints import added
from lorakit.checkpoints.finding import quiet
from lorakit.checkpoints.rounded import check_installed, round_base
from lorakit.errors import LorakitError
from lorakit.fast import activations, frozen, logits, relative, waiting, widened
from lorakit.fast.isolation import widens
from lorakit.fast.settings import SpeedSettings
from lorakit.methods.settings import MethodSettings
from lorakit.methods.trainable import silence_frozen
from lorakit.recipe import LoadedRecipe, Recipe
from lorakit.training import memory
from lorakit.training.precision import Precision, choose, lower_frozen
from lorakit.training.sharding import check_can_be_cut
from lorakit.types import Trainable
from lorakit.workflows.laying import loaded, pools
from lorakit.workflows.preparing import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Built:
    """A model with some weights learning, and how it will compute."""

    model: PreTrainedModel
    trainable: Trainable
    attention: str
    """Name of the attention function the model was loaded with."""
    packing_note: str
    """Why rows are not packed; empty where they are."""
    precision: Precision
    precision_note: str
    taken: tuple[str, ...]
    """Names of other fast paths that are taken, as in the section `speed`, and whether threads wait awake."""
    budget: int
    """Tokens computed at once."""
    per_token: int
    """Estimated bytes of one more of them."""
    recomputed: bool
    """Whether blocks are computed again in the backward pass."""
    memory: int
    """Expected peak in bytes: weights, gradients, moments and the activations of one micro-batch."""
    base_parameters: int
    """Weights of the base, a tied one counted once."""
    fresh: tuple[str, ...] = ()
    """Names of weights that the checkpoint lacks: a new head, drawn from the seed."""

    @property
    def packed(self) -> bool:
        """Whether rows lie end to end, without padding."""
        return not self.packing_note


def build(recipe: Recipe, rows: Rows, device: torch.device, world: int, cut: str = "") -> Built:
    """Load the checkpoint, choose attention and precision, and let the method's weights learn.

    Args:
        recipe: As it runs.
        rows: Prepared for it.
        device: Where this process computes.
        world: Number of processes.
        cut: What they will share (`memory.to_come`); the model then stays on the processor, whole, until they do.

    Raises:
        CheckpointError: The weights cannot be read.
        TrainingError: The method does not fit the model.
    """
    checkpoint = rows.checkpoint
    width = getattr(recipe.method, "quantize_base", None)
    check_installed(width)
    if cut:
        check_can_be_cut(recipe.method.name, width, cut)
    precision, precision_note = choose(recipe.train.dtype, device)
    model, fresh, attention, packing_note = loaded(recipe, rows, device, precision)
    base_parameters = sum(weight.numel() for weight in model.parameters())
    torch.manual_seed(recipe.train.seed)
    with quiet():
        model, trainable = methods.load(recipe.method.name)(
            model, recipe.method, checkpoint.family, rows.objective.head, fresh, checkpoint.new_rows
        )
        if rows.target.form in ("lora", "changed"):
            _put_parent(model, rows.target, trainable)
    # A base that is to be cut may not fit as it is where it will compute.
    there = torch.device("cpu") if cut else device
    if width is not None:
        round_base(model, width, device)
        model = model.to(device)
    if recipe.train.dropout is None and recipe.method.name in ("freeze", "delta"):
        silence_frozen(model, checkpoint.family)
    rounded = [f"base in {width}"] if width is not None else []
    taken = (*rounded, *quicken(model, recipe.speed, precision, not packing_note, there))
    if precision == "bfloat16" and not packing_note and device.type == "cpu" and widens(model, pools(rows)):
        taken = (*taken, "widened")
    if device.type == "cpu" and waiting.awake() and torch.get_num_threads() > 1:
        taken = (*taken, "waiting awake")
    to_come = memory.to_come(model, cut, world)
    bytes_each = 2 if precision == "bfloat16" else 4
    budget, per_token, recomputed = _budget(recipe, rows, model, device, world, bytes_each, to_come)
    expected = memory.held(device) + to_come + budget * per_token
    return Built(
        model=model,
        trainable=trainable,
        attention=attention,
        packing_note=packing_note,
        precision=precision,
        precision_note=precision_note,
        taken=taken,
        budget=budget,
        per_token=per_token,
        recomputed=recomputed,
        memory=expected,
        base_parameters=base_parameters,
        fresh=fresh,
    )


def quicken(
    model: nn.Module, speed: SpeedSettings, precision: Precision, packed: bool, device: torch.device
) -> tuple[str, ...]:
    """Take the fast paths that change a model after its method is applied; return which of them were taken.

    It goes to its device on the way, in no more bytes than it computes with: in float32 it may not fit there.

    The bundle that is read back at the end of a run goes the same way, so that it computes as training did.

    Args:
        model: With the gradients marked that are wanted.
        speed: Which paths may be taken.
        precision: Of matrix products.
        packed: Whether rows lie end to end, so that few sizes occur.
        device: Where it will compute.
    """
    relative.prepare(model)
    taken = []
    if speed.activations and activations.fuse(model):
        taken.append("activations")
    if speed.logits and logits.scores_words(model):
        taken.append("logits")
        logits.prove_last(model)
    if precision == "bfloat16":
        lower_frozen(model)
        if not speed.widened:
            widened.switch_off(model)
    model.to(device)
    # torch's compiler stops at the door to oneDNN, and has one of its own.
    through_onednn = speed.products and speed.compile is not True
    if precision == "float32" and through_onednn and packed and frozen.take(model):
        taken.append("products")
    return tuple(taken)


def follow_parent(loaded: LoadedRecipe, target: Target) -> LoadedRecipe:
    """Return the recipe with the method of the adapter it goes on from, where the recipe names none itself.

    Raises:
        LorakitError: The recipe names another method, rank or targets than the adapter has.
    """
    if target.form not in ("lora", "changed"):
        return loaded
    earlier = _method_of(target)
    asked = loaded.recipe.method.model_dump()
    named = {
        key.removeprefix("method.")
        for key, origin in loaded.origins.items()
        if key.startswith("method.") and not origin.startswith("default")
    }
    differing = sorted(key for key in named if asked.get(key) != earlier.get(key))
    if differing:
        shown = ", ".join(f"{key}: {earlier.get(key)!r} there, {asked.get(key)!r} here" for key in differing)
        raise LorakitError(
            f"{target.folder} cannot be gone on from with another method ({shown}). Leave these keys out, or merge it "
            f"first and train on the merged model: lorakit merge {shlex.quote(str(target.folder))} -o DIR"
        )
    from pydantic import TypeAdapter

    method: Any = TypeAdapter(MethodSettings).validate_python(earlier)
    recipe = loaded.recipe.model_copy(update={"method": method})
    origins = {**loaded.origins, **{f"method.{key}": "the adapter gone on from" for key in earlier if key not in named}}
    return LoadedRecipe(recipe, origins, loaded.source)


def _method_of(target: Target) -> dict[str, Any]:
    adapter, told = target.adapter, dict(target.manifest.method) if target.manifest is not None else {}
    unlike = adapter is not None and (adapter.rank_pattern or adapter.alpha_pattern)
    if unlike or (adapter is not None and not told and not isinstance(adapter.target_modules, list)):
        raise LorakitError(
            f"{target.folder} gives layers ranks of their own or names them by a pattern; merge it first and train on "
            f"the merged model: lorakit merge {shlex.quote(str(target.folder))} -o DIR"
        )
    if told:
        return told
    assert adapter is not None
    chosen = adapter.layers_to_transform
    return {
        "name": "lora",
        "rank": adapter.r,
        "alpha": adapter.lora_alpha,
        "dropout": adapter.lora_dropout,
        "targets": sorted(adapter.target_modules),
        # Whether these are the last ones of this model is seen when its weights are put on (`_put_parent`).
        "last_blocks": len(chosen) if isinstance(chosen, list) else None if chosen is None else 1,
        "rslora": adapter.use_rslora,
        "dora": adapter.use_dora,
    }


def _put_parent(model: PreTrainedModel, target: Target, trainable: Trainable) -> None:
    """Start from the weights of an adapter in place of fresh ones."""
    if target.form == "lora":
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        weights = read_lora_weights(target.folder)
        odd = sorted(weights.keys() ^ get_peft_model_state_dict(model, save_embedding_layers=False).keys())
        if odd:
            raise LorakitError(
                f"{target.folder} adapts other layers than a method of its settings would ({odd[0]!r}); merge it first "
                f"and train on the merged model: lorakit merge {shlex.quote(str(target.folder))} -o DIR"
            )
        set_peft_model_state_dict(model, weights)
        return
    added.put(model, read_changed(target.folder, model, trainable.names))


def _budget(
    recipe: Recipe, rows: Rows, model: PreTrainedModel, device: torch.device, world: int, bytes_each: int, to_come: int
) -> tuple[int, int, bool]:
    """Return the tokens computed at once, the bytes of each, and whether blocks are computed again; then they are.

    That is done unasked where not even the longest row would fit. `to_come` are the bytes of what is not there yet:
    gradients, moments, and of a model that is to be cut its part.
    """
    scored = model.get_output_embeddings()
    vocabulary = len(rows.objective.head.labels) if scored is None else scored.weight.shape[0]
    share = rows.report.learned / max(1, rows.report.tokens) if recipe.speed.logits else 1.0
    if scored is not None and logits.scored_in_parts(model, rows.report.tokens):
        # What an evaluation holds, which computes a quarter at once (`Run.batches`).
        share /= 4
    longest = max(rows.report.longest, max(len(example) for example in rows.evaluation))
    free = memory.free_bytes(device) - to_come
    each = memory.per_token(rows.checkpoint.config, vocabulary, share, bytes_each)
    asked = recipe.train.gradient_checkpointing
    recomputed = asked is True or (asked == "auto" and longest * each > free and memory.recomputable(model))
    if recomputed:
        with quiet():
            memory.recompute(model)
        each = memory.per_token(rows.checkpoint.config, vocabulary, share, bytes_each, recomputed)
    step = rows.tokens_per_step or (rows.rows_per_step or 1) * longest
    found = memory.budget(free, each, longest, -(-step // world), device)
    return recipe.train.micro_batch_tokens or found, each, recomputed
